import pytest

from hf_msae.neuron_labels.budget import Meter
from hf_msae.neuron_labels.proposals import Proposals
from hf_msae.neuron_labels.proposers.base import Request
from hf_msae.neuron_labels.proposers.language_model import Generation, LanguageModelProposer, UnansweredError


class Breaking(LanguageModelProposer):
    """Cannot be called after a number of prompts."""

    def __init__(self, left):
        super().__init__(chat=True)
        self.left, self.asked = left, 0

    def generate(self, prompts, seeds, not_first):
        self.asked += len(prompts)
        good = Generation("<concept>red fruit</concept>", input_tokens=7, output_tokens=3)
        made = [good] * min(self.left, len(prompts))
        self.left -= len(made)
        return made + [Generation("", failure="the server is gone")] * (len(prompts) - len(made))


def test_answers_that_came_before_a_failure_are_kept(tmp_path):
    requests, meter = [Request(seed=seed) for seed in range(5)], Meter()
    with pytest.raises(UnansweredError, match="the server is gone"):
        Proposals(Breaking(3), meter, tmp_path).ask(requests)
    spent = meter.to_dict()
    assert [spent[name] for name in ("calls", "tokens", "input_tokens", "output_tokens")] == [3, 30, 21, 9]
    proposer, again = Breaking(9), Meter()
    answers = Proposals(proposer, again, tmp_path).ask(requests)
    assert [answer.concept for answer in answers] == ["red fruit"] * 5
    assert (proposer.asked, again.spent.calls) == (2, 2)
