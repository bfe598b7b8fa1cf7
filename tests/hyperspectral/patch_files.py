"""Patches of files: read, compared and changed."""

import numpy as np

from hf_msae.hyperspectral import Patches, load_patches


def load(source, **options):
    return load_patches(source, progress=False, **options)


def same(a: Patches, b: Patches) -> bool:
    assert a.ids == b.ids and np.allclose(a.wavelengths, b.wavelengths)
    assert np.allclose(a.mean_spectra, b.mean_spectra, rtol=1e-5)
    assert a.sizes.equals(b.sizes)
    return all(
        np.array_equal(mask, other_mask) and np.allclose(data, other, rtol=1e-5)
        for (data, mask), (other, other_mask) in zip(a, b, strict=True)
    )


def change(folder, name="2", **arrays):
    file = folder / "train_data" / f"{name}.npz"
    with np.load(file) as content:
        np.savez(file, **{**content, **arrays})
    return file


def of(folder, name="2"):
    with np.load(folder / "train_data" / f"{name}.npz") as content:
        return dict(content)
