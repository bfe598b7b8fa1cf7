"""Old names still work for one release, and say what the new ones are."""

import pytest

from hf_msae import embeddings
from hf_msae._utils.deprecation import renamed_arguments


@renamed_arguments(activations="embeddings")
def double(embeddings):
    return 2 * embeddings


def test_an_old_keyword_still_works():
    with pytest.warns(DeprecationWarning, match=r"activations.*embeddings"):
        assert double(activations=2) == 4
    assert double(embeddings=3) == 6
    assert double(3) == 6
    with pytest.raises(TypeError, match="embeddings and activations"):
        double(activations=1, embeddings=2)


@pytest.mark.parametrize(
    "old, new", [("load_activations", "load_embeddings"), ("ActivationWriter", "EmbeddingWriter")]
)
def test_an_old_attribute_still_works(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(embeddings, old) is getattr(embeddings, new)
    with pytest.raises(AttributeError, match="no_such"):
        embeddings.no_such  # noqa: B018
