from .checks import PatchError
from .eagle_eyes import EagleEyesFeatures
from .earth_library import load_earth_library
from .fixed import FixedClassifier
from .generator import BLIND_SPOTS, CAUSES, causal_bands, make_patches
from .hybrid import HybridRegressor, hyperview_score, predict_out_of_fold, score_by_size
from .loading import load_patches
from .mean_spectrum import MeanSpectrum
from .patches import HYPERVIEW2_TARGETS, HYPERVIEW_WAVELENGTHS, TARGETS, Patches
from .result import Finding, RedTeamReport
from .run import AUDITS, red_team
from .soil_spectra import SOIL_SETS, load_soil_spectra
from .vision import HYPERVIEW_SCALE, HyperviewTransformer, VisionRegressor
