"""The discriminator: two patch discriminators, at full and at half resolution, that see scan and label map.

References
----------
Wang et al. 2018, "High-resolution image synthesis and semantic manipulation with conditional GANs",
doi:10.1109/CVPR.2018.00917. Miyato et al. 2018, "Spectral normalization", arXiv:1802.05957.
"""

import torch
import torch.nn.functional as F
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class TwoScaleDiscriminator(nn.Module):
    """Judge scans given their label maps; instance and spectral norm, no batch statistics anywhere.

    Parameters
    ----------
    dimensions : int
        2 or 3.
    in_channels : int
        Modalities and condition channels together.
    channels : int
        In the first layer.
    n_layers : int
        Of each discriminator.
    """

    def __init__(self, dimensions: int, in_channels: int, channels: int, n_layers: int) -> None:
        super().__init__()
        self.pool = F.avg_pool2d if dimensions == 2 else F.avg_pool3d
        self.scales = nn.ModuleList(
            PatchDiscriminator(dimensions, channels, in_channels, num_layers_d=n_layers, norm="INSTANCE")
            for _ in range(2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                spectral_norm(module)

    def forward(self, scan: Tensor, condition: Tensor) -> list[list[Tensor]]:
        """Judge scans.

        Parameters
        ----------
        scan : Tensor, (N, modalities, *spatial), float32 in [-1, 1]
        condition : Tensor, (N, condition_channels, *spatial), float32

        Returns
        -------
        list of list of Tensor
            For each scale the features of each layer; the last are the logits of patches.
        """
        joined = torch.cat([scan, condition], dim=1)
        results = []
        for discriminator in self.scales:
            results.append(discriminator(joined))
            joined = self.pool(joined, 2)
        return results
