"""Fixtures for tests of the model."""

import pytest

from tests.model.small_models import make_model


@pytest.fixture(scope="module")
def model():
    return make_model()
