"""Brain extraction by a program of the user's: SynthStrip or HD-BET, with weights that the user names.

Neither ships its weights, and both would fetch them when run; so the config names the file, and nothing is fetched.

References
----------
Hoopes et al. 2022, "SynthStrip: skull-stripping for any brain image", doi:10.1016/j.neuroimage.2022.119474.
Isensee et al. 2019, "Automated brain extraction of multisequence MRI using artificial neural networks",
doi:10.1002/hbm.24750.
"""

import os
import shutil
import subprocess
from pathlib import Path

from pipeline.errors import CaseError, ConfigError
from pipeline.resampling import place_on_grid
from pipeline.scratch import temporary_folder
from pipeline.volumes import Volume, load_volume, save_volume, to_ras

TIMEOUT_S = 1800
PROGRAMS = {"synthstrip": ("mri_synthstrip", "nipreps-synthstrip"), "hd-bet": ("hd-bet",)}


def find_program(tool: str) -> str:
    """Return the path of a tool's program.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    for name in PROGRAMS[tool]:
        found = shutil.which(name)
        if found:
            return found
    raise ConfigError(
        f"ingest.brain_extraction: {tool}, and none of {', '.join(PROGRAMS[tool])} is on the PATH; install it, or use "
        "atlas"
    )


def run_tool(head: Volume, tool: str, weights: Path) -> Volume:
    """Return the brain mask that a tool finds: bool, on the head's grid.

    Parameters
    ----------
    head : Volume
        RAS.
    tool : str
        ``synthstrip`` or ``hd-bet``.
    weights : Path
        File of SynthStrip's model, or folder of HD-BET's.

    Raises
    ------
    ConfigError
        If program or weights are not there.
    CaseError
        If the tool fails, or gives no mask on the head's grid.
    """
    program = find_program(tool)
    if not weights.exists():
        raise ConfigError("ingest.brain_weights: no such file or folder; expected the tool's weights; fetch them first")
    with temporary_folder() as folder:
        scan, mask = folder / "scan.nii.gz", folder / "brain_mask.nii.gz"
        save_volume(head, scan)
        if tool == "synthstrip":
            command = [program, "-i", str(scan), "-m", str(mask), "--model", str(weights)]
        else:
            # Weights by environment: HD-BET has no option for them.
            command = [program, "-i", str(scan), "-o", str(folder / "brain.nii.gz"), "--save_bet_mask"]
            command += ["-device", "cpu", "--disable_tta"]
            mask = folder / "brain_bet.nii.gz"
        try:
            result = subprocess.run(
                command, capture_output=True, timeout=TIMEOUT_S, check=False, env=_environment(tool, weights, folder)
            )
        except subprocess.TimeoutExpired as error:
            raise CaseError(f"{tool} did not end; expected a brain mask; look at the scan") from error
        if result.returncode != 0 or not mask.is_file():
            raise CaseError(f"{tool} failed (exit code {result.returncode}); expected a brain mask; run it by hand")
        found = to_ras(load_volume(mask))
        return place_on_grid(Volume(found.array > 0, found.affine), head, called="brain mask")


def _environment(tool: str, weights: Path, folder: Path) -> dict[str, str]:
    """Return what a tool is run with: its temporary files, too, are a patient's."""
    own = {"HD_BET_PARAMS": str(weights)} if tool == "hd-bet" else {}
    return {**os.environ, **own, "TMPDIR": str(folder)}
