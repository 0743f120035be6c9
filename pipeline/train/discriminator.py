"""The discriminator: two patch discriminators, at full and at half resolution, and one that sees nothing but grain.

The grain of a scan, its noise and fine texture, is a fiftieth of its range. A discriminator bound by spectral norm all
but overlooks differences so small, and instance norm takes their strength away; without more the generator draws skin
without pores. So a third, shallow one without norm is shown the scan's detail alone, amplified. It gives no features to
match: noise must be alike in kind, not place by place.

References
----------
Wang et al. 2018, "High-resolution image synthesis and semantic manipulation with conditional GANs",
doi:10.1109/CVPR.2018.00917 (two scales). Miyato et al. 2018, "Spectral normalization", arXiv:1802.05957. Gal et al.
2021, "SWAGAN: a style-based wavelet-driven generative model", doi:10.1145/3450626.3459836 (high frequencies shown
apart).
"""

import torch
import torch.nn.functional as F
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

DETAIL_WINDOW, DETAIL_GAIN, DETAIL_LIMIT = 3, 20.0, 2.0
GRAIN_LAYERS, GRAIN_NARROWER = 1, 2
# What the generator heeds of each judgement. Of the grain a tenth: its amplified detail gives amplified gradients, and
# more of it costs fidelity to the label map.
WEIGHTS = (0.5, 0.5, 0.1)


class Discriminator(nn.Module):
    """Judge scans given their label maps; no batch statistics anywhere.

    Parameters
    ----------
    dimensions : int
        2 or 3.
    n_modalities, n_classes : int
        Channels of scan and condition.
    channels : int
        In the first layer of the two that see the scan itself; half as many in that of the grain.
    n_layers : int
        Of the two that see the scan itself.
    spectral : bool
        Whether spectral norm binds every layer: always, but where gradients are taken sample by sample.
    """

    def __init__(
        self,
        dimensions: int,
        n_modalities: int,
        n_classes: int,
        channels: int,
        n_layers: int,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        self.pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
        n_channels = n_modalities + n_classes
        self.scales = nn.ModuleList(
            PatchDiscriminator(dimensions, channels, n_channels, num_layers_d=n_layers, norm="INSTANCE")
            for _ in range(2)
        )
        self.grain = PatchDiscriminator(
            dimensions,
            max(1, channels // GRAIN_NARROWER),
            n_channels,
            num_layers_d=GRAIN_LAYERS,
            norm=None,  # type: ignore[arg-type]  # MONAI's hint forbids what its code allows.
        )
        for module in self.modules():
            if spectral and isinstance(module, nn.Conv2d | nn.Conv3d):
                spectral_norm(module)

    def forward(self, scan: Tensor, condition: Tensor, with_grain: bool = True) -> list[list[Tensor]]:
        """Judge scans.

        Parameters
        ----------
        scan : Tensor, (N, modalities, *spatial), float32 in [-1, 1]
        condition : Tensor, (N, classes, *spatial), float32
        with_grain : bool
            Whether the third is asked too; who wants features to match need not.

        Returns
        -------
        list of list of Tensor
            For each of the three the features of each layer; the last are the logits of patches. Of the grain there
            are logits only.
        """
        joined = torch.cat([scan, condition], dim=1)
        results = []
        for discriminator in self.scales:
            results.append(discriminator(joined))
            joined = self.pool(joined, 2)
        if with_grain:
            results.append(self.grain(torch.cat([self.detail(scan, condition), condition], dim=1))[-1:])
        return results

    def detail(self, scan: Tensor, condition: Tensor) -> Tensor:
        """Return what a scan has beside its local mean, amplified and cut at a limit.

        0 where there is no brain: outside, and where augmentation has cut out or moved in nothing.
        """
        smooth = self.pool(scan, DETAIL_WINDOW, 1, DETAIL_WINDOW // 2, count_include_pad=False)
        inside = condition[:, 1:].sum(dim=1, keepdim=True) > 0
        detail = (DETAIL_GAIN * (scan - smooth)).clamp(-DETAIL_LIMIT, DETAIL_LIMIT)
        return torch.where(inside, detail, 0.0)
