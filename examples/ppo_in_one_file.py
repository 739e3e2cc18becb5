"""PPO with a teacher in one file: `python examples/ppo_in_one_file.py`. The library's algorithm without its machinery.

A student answers prompts, a reward function scores each answer, and PPO raises the probability of what scored better
than the critic expected, while KL(student || teacher) keeps the student near its teacher. Three steps of this file
equal three steps of the library (tests/test_examples.py). Left out: several processes, KV cache, checkpoints.

Shapes: B completions, T completion tokens (padded), L prompt + completion tokens, V vocabulary, D hidden size.
Index t of every *_BT tensor is about completion token t: its log-probability, the value of the state before it, the
reward that arrives after it. mask_BT is true on real tokens, EOS included.
"""

import torch
from torch import nn

TEMPERATURE, GAMMA, LAMBDA = 1.0, 1.0, 0.95
CLIP, VALUE_CLIP, VALUE_COEF, KL_COEF = 0.2, 0.2, 0.5, 1.0
NUM_EPOCHS, LEARNING_RATE, VALUE_LEARNING_RATE, MAX_GRAD_NORM = 2, 7e-4, 3e-3, 1.0


class ActorCritic(nn.Module):
    """The student and, on its last hidden state, a linear critic that starts at zero."""

    def __init__(self, student):
        super().__init__()
        self.student = student
        self.value_head = nn.Linear(student.config.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, ids_BL):
        hidden_BLD = self.student.get_decoder()(input_ids=ids_BL, use_cache=False).last_hidden_state
        return self.student.get_output_embeddings()(hidden_BLD), self.value_head(hidden_BLD).squeeze(-1)


def make_optimizer(model):
    groups = [
        {"params": model.student.parameters(), "lr": LEARNING_RATE},
        {"params": model.value_head.parameters(), "lr": VALUE_LEARNING_RATE},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)


@torch.no_grad()
def sample(model, prompt_ids, eos_id, max_tokens):
    """Completions (lists of token ids, EOS included), one prompt at a time and without a cache: slow and plain."""
    completions = []
    for prompt in prompt_ids:
        tokens = []
        while len(tokens) < max_tokens and eos_id not in tokens:
            logits_V = model(torch.tensor([prompt + tokens]))[0][0, -1] / TEMPERATURE
            tokens.append(int(torch.multinomial(logits_V.softmax(-1), 1)))
        completions.append(tokens)
    return completions


def pad(prompt_ids, completion_ids, pad_id):
    """(ids_BL, state_BT, targets_BT, mask_BT). state_BT: the position whose output predicts completion token t."""
    length = max(len(p) + len(c) for p, c in zip(prompt_ids, completion_ids))
    width = max(map(len, completion_ids))
    ids_BL = torch.tensor([p + c + [pad_id] * (length - len(p) - len(c)) for p, c in zip(prompt_ids, completion_ids)])
    targets_BT = torch.tensor([c + [pad_id] * (width - len(c)) for c in completion_ids])
    lengths_B = torch.tensor([len(c) for c in completion_ids])
    starts_B = torch.tensor([len(p) for p in prompt_ids])
    t_T = torch.arange(width)
    mask_BT = t_T < lengths_B[:, None]
    state_BT = torch.where(mask_BT, starts_B[:, None] - 1 + t_T, 0)
    return ids_BL, state_BT, targets_BT, mask_BT


def look_at(logits_BLV, state_BT, targets_BT):
    """(log-probabilities of all tokens, those of the completion's tokens) in the states before each of them."""
    all_BTV = logits_BLV.gather(1, state_BT[..., None].expand(-1, -1, logits_BLV.shape[-1])) / TEMPERATURE
    all_BTV = all_BTV.log_softmax(-1)
    return all_BTV, all_BTV.gather(-1, targets_BT[..., None]).squeeze(-1)


def gae(rewards_BT, values_BT, mask_BT):
    """(advantages, returns): delta_t = r_t + gamma V_t+1 - V_t; A_t = delta_t + gamma lambda A_t+1; R_t = A_t + V_t.

    The score ends the episode, whether the completion finished or was cut: there is no value after its last token.
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value_B, next_advantage_B = torch.zeros(len(rewards_BT)), torch.zeros(len(rewards_BT))
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + GAMMA * next_value_B - values_BT[:, t]
        advantages_BT[:, t] = torch.where(mask_BT[:, t], delta_B + GAMMA * LAMBDA * next_advantage_B, 0.0)
        next_value_B = torch.where(mask_BT[:, t], values_BT[:, t], 0.0)
        next_advantage_B = advantages_BT[:, t]
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def ppo_step(model, teacher, optimizer, prompt_ids, completion_ids, scores, pad_id):
    """One PPO step on sampled completions and their scores; returns the losses of the last epoch."""
    ids_BL, state_BT, targets_BT, mask_BT = pad(prompt_ids, completion_ids, pad_id)

    with torch.no_grad():  # what the student, critic and teacher say before any update
        logits_BLV, values_BL = model(ids_BL)
        _, old_logprobs_BT = look_at(logits_BLV, state_BT, targets_BT)
        old_values_BT = values_BL.gather(1, state_BT)
        teacher_BTV, _ = look_at(teacher(input_ids=ids_BL).logits, state_BT, targets_BT)

    last_BT = mask_BT & ~torch.nn.functional.pad(mask_BT[:, 1:], (0, 1))
    rewards_BT = torch.where(last_BT, torch.tensor(scores)[:, None], 0.0)  # the score lands on the last real token
    advantages_BT, returns_BT = gae(rewards_BT, old_values_BT, mask_BT)
    real = advantages_BT[mask_BT]
    advantages_BT = (advantages_BT - real.mean()) / (real.var(unbiased=False) + 1e-8).sqrt()

    for _ in range(NUM_EPOCHS):
        logits_BLV, values_BL = model(ids_BL)
        student_BTV, logprobs_BT = look_at(logits_BLV, state_BT, targets_BT)
        values_BT = values_BL.gather(1, state_BT)
        kl_BT = (student_BTV.exp() * (student_BTV - teacher_BTV)).sum(-1)  # exact, over the whole vocabulary

        ratio_BT = (logprobs_BT - old_logprobs_BT).exp()
        surrogate_BT = torch.minimum(ratio_BT * advantages_BT, ratio_BT.clamp(1 - CLIP, 1 + CLIP) * advantages_BT)
        policy_loss = -surrogate_BT[mask_BT].mean()
        clipped_BT = values_BT.clamp(old_values_BT - VALUE_CLIP, old_values_BT + VALUE_CLIP)
        error_BT = torch.maximum((values_BT - returns_BT).square(), (clipped_BT - returns_BT).square())
        value_loss = 0.5 * error_BT[mask_BT].mean()
        kl_loss = kl_BT[mask_BT].mean()

        optimizer.zero_grad()
        (policy_loss + VALUE_COEF * value_loss + KL_COEF * kl_loss).backward()
        for part in (model.student, model.value_head):  # clipped apart: a large KL gradient would starve the critic
            nn.utils.clip_grad_norm_(part.parameters(), MAX_GRAD_NORM)
        optimizer.step()
    return {"policy": policy_loss.item(), "value": value_loss.item(), "kl": kl_loss.item()}


def main(num_steps=30, batch_size=16, max_tokens=6):
    """A toy: two tiny random models; an answer is worth the share of its tokens that are even numbers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=4)
    teacher, model = Qwen2ForCausalLM(config).eval(), ActorCritic(Qwen2ForCausalLM(config))
    optimizer, rewards = make_optimizer(model), []
    for step in range(num_steps):
        prompts = torch.randint(2, 32, (batch_size, 4)).tolist()
        completions = sample(model, prompts, eos_id=1, max_tokens=max_tokens)
        scores = [sum(token % 2 == 0 for token in tokens) / len(tokens) for tokens in completions]
        losses = ppo_step(model, teacher, optimizer, prompts, completions, scores, pad_id=0)
        rewards.append(sum(scores) / batch_size)
        print(f"step {step + 1:2d}  reward {rewards[-1]:.3f}  " + "  ".join(f"{k} {v:.4f}" for k, v in losses.items()))
    return rewards


if __name__ == "__main__":
    main()
