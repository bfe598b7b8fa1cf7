from .checks import PatchError
from .eagle_eyes import EagleEyesFeatures
from .generator import BLIND_SPOTS, CAUSES, causal_bands, make_patches
from .loading import load_patches
from .mean_spectrum import MeanSpectrum
from .patches import HYPERVIEW2_TARGETS, HYPERVIEW_WAVELENGTHS, TARGETS, Patches
