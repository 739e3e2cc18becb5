"""Supervised stages: what the labels are, and an optimizer whose momentum survives a checkpoint."""

import copy

import torch

from rl_distill.distill.sft import MuonAdamW, TrainingText, tokenized


def test_only_a_finished_completion_ends_with_eos(tokenizer):
    rows = tokenized(tokenizer, [TrainingText("a b", "c d"), TrainingText("a b", "c d", finished=False)])
    prompt, completion = (tokenizer(text)["input_ids"] for text in ("a b", "c d"))
    assert rows["labels"][0] == [-100] * len(prompt) + completion + [tokenizer.eos_token_id]
    assert rows["labels"][1] == [-100] * len(prompt) + completion
    assert rows["input_ids"][1] == prompt + completion


def test_muon_goes_on_exactly_from_its_state(make_policy):
    def descend(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
            optimizer.step()

    model = make_policy()
    optimizer = MuonAdamW(model, 1e-2)
    descend(model, optimizer, 3)
    twin, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    again = MuonAdamW(twin, 1e-2)
    again.load_state_dict(state)
    descend(model, optimizer, 2)
    descend(twin, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))
