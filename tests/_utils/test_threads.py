"""Threads that fit the cores a process may use."""

import joblib
import pytest

from hf_msae._utils.threads import SPINS, fit_threads_to_cores


@pytest.mark.parametrize(
    ("given", "cores", "expected"),
    [
        ({}, 2, {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": SPINS}),
        ({}, 8, {"GOMP_SPINCOUNT": SPINS}),
        ({"OMP_NUM_THREADS": "4"}, 2, {"OMP_NUM_THREADS": "4", "GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, 8, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, 8, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_fit_the_cores_of_a_container_of_a_larger_machine(given, cores, expected, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    fit_threads_to_cores(environment := dict(given))
    assert environment == expected


def test_a_command_sets_them_before_torch_is_imported(monkeypatch):
    seen = []
    monkeypatch.setattr("hf_msae._utils.argument_parser.fit_threads_to_cores", lambda: seen.append(True))
    from hf_msae._utils.argument_parser import MSAEArgumentParser
    from hf_msae.cli.quickstart import QuickstartArguments

    MSAEArgumentParser([QuickstartArguments], description="", example="").parse([])
    assert seen == [True]
