"""earthlib's spectra: read as they are, surfaces of fields, and a class that is its source."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral import HYPERVIEW_WAVELENGTHS, load_earth_library, make_patches, red_team

envi = pytest.importorskip("spectral.io.envi", reason="needs the extra hyperspectral")


def test_a_library_is_read_in_nanometers_with_its_labels(tmp_path, monkeypatch):
    folder = tmp_path / "earthlib" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "earthlib" / "__init__.py").touch()
    micrometers = np.arange(0.4, 1.0, 0.01)
    spectra = np.array([[0.2], [0.5]], dtype=np.float32) * micrometers[None].astype(np.float32)
    header = {"wavelength": list(micrometers), "wavelength units": "Micrometers", "spectra names": ["a", "b"]}
    envi.SpectralLibrary(spectra, header).save(str(folder / "spectra"))
    (folder / "spectra.hdr").rename(folder / "spectra.sli.hdr")
    table = pd.DataFrame({"LEVEL_2": ["bare", "vegetation"], "LEVEL_3": ["soil", "canopy"], "SOURCE": ["x", "y"]})
    table.to_csv(folder / "spectra.csv", index=False)
    spec = spec_from_file_location("earthlib", folder.parent / "__init__.py", submodule_search_locations=[])
    monkeypatch.setitem(sys.modules, "earthlib", module_from_spec(spec))
    found = load_earth_library([500.0, 505.0, 600.0])
    assert found.ids == ["a", "b"] and found.groups["cover"].tolist() == ["bare", "vegetation"]
    assert found.groups["material"].tolist() == ["soil", "canopy"] and found.groups["source"].tolist() == ["x", "y"]
    assert np.allclose(found.mean_spectra / 1e4, np.outer([0.2, 0.5], [0.5, 0.505, 0.6]))


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "earthlib", None)
    with pytest.raises(ImportError, match="earthlib"):
        load_earth_library()


def test_a_class_that_is_its_source_is_found():
    pytest.importorskip("earthlib", reason="needs the package earthlib")
    library = load_earth_library()
    assert len(library) == 7261 and (library.wavelengths == HYPERVIEW_WAVELENGTHS).all()
    soils, plants = (library.mean_spectra[library.groups["material"] == name] / 1e4 for name in ("soil", "canopy"))
    assert len(soils) == 4185 and len(plants) == 2000 and 0 < soils.min() < plants.max() < 1.1
    assert make_patches(2, soils=soils, plants=plants, edges=(11, 12)).mean_spectra.shape == (2, 150)
    some = library[::12]
    bare = np.where(some.groups["cover"] == "bare", "bare", "covered")
    model = make_pipeline(StandardScaler(), LogisticRegression())
    options = {"audits": ["shortcuts"], "num_bootstrap": 200, "progress": False}
    first = red_team(model, some, bare, {"source": some.groups["source"]}, **options).findings[0]
    assert first.severity == "severe" and "source" in first.title
