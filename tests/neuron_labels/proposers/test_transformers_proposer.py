import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel

from hf_msae.neuron_labels.proposers.base import Request
from hf_msae.neuron_labels.proposers.prompts import Prompt
from hf_msae.neuron_labels.proposers.sampling import PrefixCache, SeededSampling, StopAtText
from hf_msae.neuron_labels.proposers.transformers_model import TransformersProposer

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>assistant:"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
REQUESTS = [
    Request((("red apple", 0.93), ("tree", 0.41)), ("red apple", "tree"), seed=3),
    Request((("wolf", 0.9),), ("wolf",), seed=4),
    Request(tuple((f"thing {letter}", 0.5) for letter in "abcdefgh"), ("fog",), merge=True, seed=5),
    Request(seed=6),
]


def make_tokenizer(chat):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([Prompt(name).text for name in ("idea", "idea_completion")], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE if chat else None
    return fast


def make_model(family="Llama", dtype=torch.float64, **options):
    torch.manual_seed(0)
    options = {"vocab_size": 600, "intermediate_size": 64, "max_position_embeddings": 4096, **SIZES, **options}
    config = getattr(transformers, f"{family}Config")(bos_token_id=0, eos_token_id=1, **options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype)
    model.generation_config.eos_token_id = 1
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tokenizers():
    return {chat: make_tokenizer(chat) for chat in (True, False)}


def written(proposer, requests=REQUESTS):
    """What the model writes, before it is read."""
    found = []
    generate = proposer.generate
    proposer.generate = lambda *arguments: found.append(generate(*arguments)) or found[-1]
    answers = proposer.propose(requests)
    return found, answers


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_answers_and_counts(model, tokenizers, chat):
    proposer = TransformersProposer(model, tokenizers[chat], max_new_tokens=12, retries=1)
    assert proposer.chat is chat
    rounds, answers = written(proposer)
    assert len(answers) == 4
    for place, answer in enumerate(answers):
        first = rounds[0][place]
        assert 1 <= first.output_tokens <= 12
        assert first.input_tokens > 150
        assert answer.calls == answer.malformed + (answer.concept is not None)
        assert answer.input_tokens >= first.input_tokens * answer.calls
    assert sum(answer.malformed for answer in answers) > 0  # a random model writes no answers


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "Gemma3"])
def test_an_answer_does_not_depend_on_the_batch_or_the_kept_prefix(tokenizers, family, monkeypatch):
    options = {"Gemma3": {"head_dim": 16, "sliding_window": 4096}}.get(family, {})
    if family == "Gemma3":
        monkeypatch.setattr(transformers, "Gemma3Config", transformers.Gemma3TextConfig)
    model = make_model(family, **options)

    def texts(batch_size, requests=REQUESTS):
        proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=20, batch_size=batch_size, retries=0)
        return [generation.text for generation in written(proposer, requests)[0][0]]

    together = texts(4)
    assert len(set(together)) == 4
    assert texts(1) == texts(3) == together
    assert texts(4, REQUESTS[::-1]) == together[::-1]
    monkeypatch.setattr(PrefixCache, "shared", lambda self, rows, most_new: (0, None))
    assert texts(4) == together


def test_the_beginning_of_prompts_is_computed_once(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=4, batch_size=2, retries=0)
    lengths = []
    hook = model.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    for seed in range(3):
        proposer.propose([Request((("a cup", 0.5),), seed=seed), Request((("rope", 0.7),), seed=seed)])
    hook.remove()
    [length] = [length for length in lengths if length > 100]
    head = Prompt("idea_completion").head
    assert 0 <= len(tokenizers[False](head)["input_ids"]) - length <= 2


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Mistral", {"sliding_window": 64}),
        ("Mamba", {"intermediate_size": 64, "state_size": 4, "num_hidden_layers": 2}),
    ],
)
def test_no_prefix_is_kept_where_padding_would_count(family, options, tokenizers):
    model = make_model(family, torch.float32, **options)
    proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=4, retries=0)
    rows = [proposer._tokens(proposer._idea.head + tail) for tail in ("a", "b c d")]
    assert proposer._prefix.shared(rows, 4) == (0, None)
    assert len(proposer.propose(REQUESTS)) == 4


def test_seeds_decide(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=20, retries=0)
    prompt = "a list of things:\n"
    same, other, again = (generation.text for generation in proposer.generate([prompt] * 3, [1, 2, 1]))
    assert same == again != other


def test_an_answer_can_be_kept_from_beginning_as_it_would(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=5, temperature=0, retries=0)
    prompts = ["a list of things:\n", "something else"]
    free = proposer.generate(prompts, [1, 2])
    kept = proposer.generate(prompts, [1, 2], [[free[0].text], []])
    first = [tokenizers[False](each.text)["input_ids"][0] for each in (free[0], kept[0])]
    assert first[0] != first[1]
    assert kept[1] == free[1]


def test_at_temperature_zero_the_likeliest_token_is_taken(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[False], temperature=0, max_new_tokens=6, retries=0)
    [first, second] = proposer.generate(["a list of things:\n"] * 2, [1, 2])
    assert first == second
    inputs = tokenizers[False](["a list of things:\n"], return_tensors="pt")
    greedy = model.generate(**inputs, do_sample=False, max_new_tokens=6, pad_token_id=1)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert tokenizers[False].decode(greedy, skip_special_tokens=True).startswith(first.text)


def test_samples_from_the_softmax_within_top_p():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = probabilities.log() * 0.7  # at this temperature, the softmax gives them back
    n = 20_000
    drawn = SeededSampling(0.7, 0.9, range(n))(torch.zeros(n, 1), logits.expand(n, -1)).argmax(dim=1)
    found = torch.bincount(drawn, minlength=4) / n
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert found[3] == 0
    assert (found - expected).abs().max() < 5 * (0.25 / n) ** 0.5


def test_rows_end_at_a_text(model, tokenizers):
    tokenizer = tokenizers[False]
    stop = StopAtText(tokenizer, 1, ('"', "\n"))
    rows = [[0, *tokenizer(text)["input_ids"]] for text in ('red"', "red ", "x\ny", "xyz ")]
    width = min(map(len, rows))
    rows = torch.tensor([row[:width] for row in rows])
    ended = stop(rows, None)
    assert ended.dtype == torch.bool
    for place, row in enumerate(rows.tolist()):
        text = tokenizer.decode(row[1:])
        assert ended[place].item() == ('"' in text or "\n" in text)
        assert stop.lengths[place] == (width - 1 if ended[place] else None)


def test_nothing_is_written_after_the_end(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[False], max_new_tokens=60, temperature=2.0, top_p=1.0, retries=0)
    prompts = ["one", "two things", "three more things"] * 4
    generations = proposer.generate(prompts, range(12))
    ends = [[place for place, letter in enumerate(each.text) if letter in '"\n'] for each in generations]
    assert any(ends)
    for generation, found in zip(generations, ends, strict=True):
        assert generation.is_cut == (generation.output_tokens == 60 and not found)
        if found:  # the token that ended it may go on
            assert len(generation.text) - found[0] <= 12


def test_a_chat_prompt_is_in_the_template(model, tokenizers):
    proposer = TransformersProposer(model, tokenizers[True])
    text = tokenizers[True].decode(proposer._tokens("hello"))
    assert text == "<s>user: hello</s><s>assistant:"


def test_shows_fewer_concepts_to_a_model_with_a_short_context(tokenizers):
    tokenizer = tokenizers[False]
    needed = len(tokenizer(Prompt("idea_completion").head)["input_ids"])
    model = make_model(max_position_embeddings=needed + 60)
    request = Request(tuple((f"some thing {letter}", 0.5) for letter in "abcdefghij"))
    proposer = TransformersProposer(model, tokenizer, max_new_tokens=4, retries=0)
    [generation] = written(proposer, [request])[0][0]
    assert needed < generation.input_tokens <= needed + 56
    short = TransformersProposer(make_model(max_position_embeddings=64), tokenizer, max_new_tokens=4)
    with pytest.raises(ValueError, match="context"):
        short.propose([request])


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_loads_a_folder_whose_path_stays_here(tmp_path, tokenizers, chat):
    folder = tmp_path / "tiny-llama"
    make_model(dtype=torch.float32).save_pretrained(folder)
    tokenizers[chat].save_pretrained(folder)
    loaded = TransformersProposer(str(folder), max_new_tokens=8, retries=0)
    given = TransformersProposer(make_model(dtype=torch.float32), tokenizers[chat], max_new_tokens=8, retries=0)
    assert loaded.chat is chat
    assert loaded.propose(REQUESTS) == given.propose(REQUESTS)
    settings = loaded.settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings["model"] == "tiny-llama"
    assert str(tmp_path) not in json.dumps(settings) + repr(loaded)
    assert settings["weights_sha256"] == given.settings["weights_sha256"]
    assert settings["dtype"] == "float32"
    half = TransformersProposer(str(folder), dtype="bfloat16", max_new_tokens=8)
    assert half.settings["dtype"] == "bfloat16"
    assert half.settings["weights_sha256"] != settings["weights_sha256"]


def test_settings_hold_what_answers_depend_on(model, tokenizers):
    def settings(chat=False, **options):
        return TransformersProposer(model, tokenizers[chat], **options).settings

    all_settings = [settings(), settings(chat=True), settings(temperature=1.0), settings(top_p=0.5), settings(shown=3)]
    assert len({json.dumps(each) for each in all_settings}) == 5
    assert settings(batch_size=2) == settings()
    before, own = settings(), model.generation_config
    model.generation_config = transformers.GenerationConfig(eos_token_id=1, repetition_penalty=1.3)
    penalized, model.generation_config = settings(), own
    assert penalized["generation_config"] == {"eos_token_id": 1, "repetition_penalty": 1.3}
    assert penalized != before == settings()


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        ({"temperature": -1}, "-1"),
        ({"top_p": 0}, "top_p"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_new_tokens": 0}, "0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refuses(model, tokenizers, options, offender):
    with pytest.raises(ValueError, match=offender):
        TransformersProposer(model, tokenizers[False], **options)


def test_a_loaded_model_needs_its_tokenizer(model):
    with pytest.raises(ValueError, match="tokenizer"):
        TransformersProposer(model)
