"""Wavelengths are converted where their unit is sure, and attacks use them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer

from hf_msae.hyperspectral import HYPERVIEW_WAVELENGTHS, MeanSpectrum, PatchError, load_patches, make_patches
from hf_msae.hyperspectral.audits import perturbations as p
from hf_msae.hyperspectral.audits.attacks import _inputs
from hf_msae.hyperspectral.subject import make_subject
from hf_msae.hyperspectral.wavelengths import in_nanometers, read_wavelengths
from tests.hyperspectral.worlds import spectra

NM = np.array([462.0, 600, 938])


SPELLINGS = {"nm": 1, "Nanometers": 1, "um": 1e-3, "µm": 1e-3, "Micrometers": 1e-3, "microns": 1e-3}
SPELLINGS |= {"Angstroms": 10, "m": 1e-9, "metres": 1e-9}


@pytest.mark.parametrize("unit", SPELLINGS)
def test_units_that_are_named_are_converted(unit):
    assert in_nanometers(NM * SPELLINGS[unit], unit, "a.hdr") == pytest.approx(NM)


@pytest.mark.parametrize(("factor", "named"), [(1e-3, "um"), (1e-9, "m"), (30, "angstrom")])
def test_units_that_only_one_fits_are_converted_and_named(factor, named):
    nm = NM * (1 if factor < 1 else 3)
    with pytest.warns(UserWarning, match=f"a.csv: wavelengths: .* taken as {named},"):
        assert in_nanometers(NM * factor, None, "a.csv") == pytest.approx(nm)


@pytest.mark.parametrize(
    ("numbers", "unit", "said"),
    [
        *((NM, unit, unit) for unit in ("Wavenumber", "GHz")),
        *(
            (numbers, "unknown", said)
            for numbers, said in ((NM * 10, "angstrom"), (NM * 1e4, "none|no "), ([1, 2, 150], "no"))
        ),
    ],
)
def test_units_of_something_else_or_that_are_not_sure_are_refused(numbers, unit, said):
    with pytest.raises(PatchError, match=said) as error:
        in_nanometers(numbers, unit, "a.csv")
    assert (error.value.file, error.value.field) == ("a.csv", "wavelengths")


def test_columns_of_files_may_name_the_unit(tmp_path):
    for name, unit in [
        ("wavelength", None),
        ("Wavelength (nm)", "nm"),
        ("wavelength_um", "um"),
        ("wavelengths", None),
    ]:
        pd.DataFrame({"band": [1, 2, 3], name: NM}).to_csv(tmp_path / "w.csv", index=False)
        numbers, found = read_wavelengths(tmp_path / "w.csv")
        assert numbers.tolist() == NM.tolist() and found == unit
    (tmp_path / "w.txt").write_text("462, 600, 938")
    assert read_wavelengths(tmp_path / "w.txt")[1] is None


def test_the_unit_may_be_passed_and_is_found_out(tmp_path):
    cube = np.full((3, 4, 4), 2000.0)
    pairs = [cube * np.array([1, 1.1, 1.2])[:, None, None]]
    for factor, unit in [(1, None), (10, "angstrom"), (1e-3, "um")]:
        assert load_patches(pairs, wavelengths=NM * factor, wavelength_unit=unit, progress=False).wavelengths[2] == 938
    with pytest.raises(ValueError, match="'inches'"):
        load_patches(pairs, wavelengths=NM, wavelength_unit="inches", progress=False)


def test_headers_say_their_unit(tmp_path):
    envi = pytest.importorskip("spectral.io.envi", reason="needs the extra hyperspectral")
    cube = np.broadcast_to(np.array([2000, 2100, 2200], dtype=np.int16), (4, 4, 3))
    header = {"wavelength": list(NM * 10), "wavelength units": "Angstroms"}
    envi.save_image(tmp_path / "0.hdr", cube, metadata=header)
    assert load_patches(tmp_path, progress=False).wavelengths == pytest.approx(NM)
    envi.save_image(tmp_path / "1.hdr", cube, metadata={**header, "wavelength units": "Nanometers"})
    with pytest.raises(PatchError, match="unit") as error:
        load_patches(tmp_path, progress=False)
    assert error.value.file == str(tmp_path / "1.hdr")


def test_haze_is_that_of_the_wavelengths():
    spectrum = np.array([0.0, 0, 3])
    share = 0.1 * np.array([1, 2**-1.3, 5**-1.3])
    hazy = p.haze(spectrum, 0.1, None, wavelengths=np.array([462.0, 924, 2310]))
    assert hazy == pytest.approx((1 - share) * spectrum + share)  # the mean is 1
    names = {attack.name: attack for attack in p.spectral_attacks(NM)}
    assert names["haze"].spectral(np.ones(3), 0.1, None) == pytest.approx(1), "a flat spectrum stays"
    assert names["shift"].unit == "bands of 138 to 338 nm"
    assert p.unit_of_bands(HYPERVIEW_WAVELENGTHS) == "bands of 3.2 nm"


@pytest.mark.parametrize("are_known", [True, False])
def test_without_wavelengths_haze_is_not_defined(are_known):
    X, y, _, table = spectra(n=20)
    features = table if are_known else table.assign(wavelength=np.nan)
    inputs, attacks, remarks = _inputs(make_subject(Ridge(), X, y, features=features))
    units = {attack.name: attack.unit for attack in attacks}
    assert ("haze" in units) == are_known != (p.NO_HAZE in remarks)
    assert any("2.0% of the light in the first band (462 nm)" in each for each in remarks) == are_known
    assert units["shift"] == ("bands of 12.3 nm" if are_known else "bands") and "pixel" not in units["noise"]
    assert (inputs.wavelengths is not None) == are_known


@pytest.mark.parametrize("known_by", ["patches", "transformer", "nobody"])
def test_attacks_on_patches_take_their_wavelengths_or_those_of_their_transformer(known_by):
    patches = make_patches(20, edges=(11, 11), wavelengths=np.linspace(500, 900, 9))
    transformer = MeanSpectrum().fit(patches) if known_by == "transformer" else FunctionTransformer()
    pairs = patches if known_by == "patches" else [(np.ones((9, 5, 5)), np.zeros((5, 5), dtype=bool))] * 20
    subject = make_subject(
        Ridge(), np.arange(180.0).reshape(20, 9), np.arange(20.0), patches=pairs, transformer=transformer
    )
    _, attacks, remarks = _inputs(subject)
    units = {attack.name: attack.unit for attack in attacks}
    assert "each pixel" in units["noise"], "which a mean over pixels averages away"
    if known_by == "nobody":
        assert remarks == [p.NO_HAZE] and units["shift"] == "bands"
    else:
        assert remarks == [p.about_haze(patches.wavelengths)] and units["shift"] == "bands of 50 nm"
        assert units["haze"] == "share of the light at 462 nm"


@pytest.mark.parametrize(
    ("first", "last", "shares"), [(900, 1700, ("0.8%", "0.4%")), (400, 2500, ("2.4%", "0.2%"))], ids=["swir", "soils"]
)
def test_the_report_says_what_haze_is_for_a_sensor(first, last, shares):
    said = p.about_haze(np.linspace(first, last, 5))
    assert f"{shares[0]} of the light in the first band ({first} nm)" in said
    assert f"{shares[1]} in the last ({last} nm)" in said
