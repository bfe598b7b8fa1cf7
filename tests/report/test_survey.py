"""The one pass of a report finds the latents to show, also where its candidates are not among them."""

import numpy as np
import torch

from hf_msae.concepts.labels import Labels
from hf_msae.embeddings import load_embeddings
from hf_msae.report.survey import survey
from tests.identity_msae import identity_msae


def test_latents_that_the_first_batch_does_not_show_are_fetched_afterwards():
    rows = np.full((9000, 6), 0.1, dtype=np.float32)
    rows[:4096, :2] = 1.0
    rows[4096:, 5] = np.linspace(8, 9, 9000 - 4096)
    found = survey(
        identity_msae(6, [6]),
        load_embeddings(torch.from_numpy(rows)),
        Labels(None),
        1,
        2,
        {"by_k": {}},
        progress=False,
    )
    assert found.chosen.latents == [5] == found.columns.latents.tolist()
    np.testing.assert_allclose(found.columns.values[:, 0], rows[:, 5], rtol=1e-6)
    assert found.columns.strong[:, 0].sum() == 9000 - 4096
