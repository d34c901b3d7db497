"""Diverse beam search: beams in groups, each group kept from saying what the groups before it say.

The library has given its own away; this one is a decoding loop for ``generate(custom_generate=diverse_beam_search)``,
so that caches, processors of logits and inputs are the library's.

Notation: B prompts, L tokens.
Source: Vijayakumar et al., "Diverse Beam Search" (2018), with the Hamming diversity; bookkeeping as in the release of
transformers (4.27) that the published models were decoded with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteriaList
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateBeamEncoderDecoderOutput

_NEVER = -1e9


@dataclass
class Group:
    """The finished sentences of one group of one prompt, at most ``size``.

    Attributes:
        finished: (score, ids), the score a log-probability divided by a power of the number of ids, the begin token
            among them and the end token not.
        done: no open beam can become better.
    """

    size: int
    length_penalty: float
    early_stopping: bool | str | None
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def add(self, log_probability: float, ids: list[int]) -> None:
        """A sentence that has ended."""
        self.finished.append((log_probability / len(ids) ** self.length_penalty, ids))
        self.finished.sort(key=lambda found: -found[0])
        del self.finished[self.size :]

    def look_ahead(self, best_log_probability: float, length: int) -> None:
        """Set ``done``, where no continuation of the best open beam can be better than what is finished."""
        if len(self.finished) < self.size or self.done:
            return
        attainable = best_log_probability / length**self.length_penalty
        self.done = self.early_stopping is True or self.finished[-1][0] >= attainable


@torch.no_grad()
def diverse_beam_search(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Any:
    """Decode with ``num_beams`` beams in ``num_beam_groups`` groups; for ``generate(custom_generate=...)``.

    At each step the groups choose one after the other, and a token that k beams of the groups before have just chosen
    costs ``diversity_penalty`` k. With a penalty of 0 all groups find the same sentences, as published.

    Args:
        model: any model of the library that generates.
        input_ids: int ``(B num_beams, L)``, already repeated.
        logits_processor: of log-probabilities.
        stopping_criteria: unused but for the length, as in any beam search.
        generation_config: ``num_beams``, ``num_beam_groups``, ``diversity_penalty``, ``num_return_sequences``,
            ``length_penalty``, ``early_stopping``, ``max_length``.
        model_kwargs: of the model.

    Returns:
        int ``(B num_return_sequences, length)``, the best first, padded; or, with ``return_dict_in_generate``, the
        library's output of a beam search with the scores.

    Raises:
        ValueError: for groups that do not divide the beams, or more sentences asked for than beams.
    """
    beams, groups = generation_config.num_beams or 1, generation_config.num_beam_groups or 1
    wanted = generation_config.num_return_sequences or 1
    if groups < 1 or beams % groups or wanted > beams:
        raise ValueError(
            f"num_beams ({beams}) must be a multiple of num_beam_groups ({groups}) and no less than "
            f"num_return_sequences ({wanted}); change one of them"
        )
    size, prompts = beams // groups, len(input_ids) // beams
    penalty = generation_config.diversity_penalty or 0.0
    ends = generation_config._eos_token_tensor  # pyright: ignore[reportAttributeAccessIssue]
    ends = [] if ends is None else ends.tolist()
    pad = generation_config._pad_token_tensor  # pyright: ignore[reportAttributeAccessIssue]
    pad = int(pad) if pad is not None else (ends[0] if ends else 0)
    kept = [
        [Group(size, generation_config.length_penalty or 0.0, generation_config.early_stopping) for _ in range(groups)]
        for _ in range(prompts)
    ]
    # All beams of a group begin the same: only its first may go on.
    totals = [[0.0 if beam % size == 0 else _NEVER for beam in range(beams)] for _ in range(prompts)]
    outputs = None
    while input_ids.shape[1] < (generation_config.max_length or 0):
        if outputs is None:
            outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
        else:
            new = 1 if model_kwargs["use_cache"] else None
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=new, **model_kwargs)
            outputs = model(**inputs, return_dict=True)
        model_kwargs = model._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder=model.config.is_encoder_decoder
        )
        logarithms = outputs.logits[:, -1].float().log_softmax(dim=-1)
        processed = logits_processor(input_ids, logarithms).view(prompts, beams, -1)
        so_far = processed + torch.tensor(totals, device=processed.device)[..., None]
        taken = torch.zeros_like(processed[:, 0])
        tokens = [[pad] * beams for _ in range(prompts)]
        sources = [[prompt * beams + beam for beam in range(beams)] for prompt in range(prompts)]
        for group in range(groups):
            scores = so_far[:, group * size : (group + 1) * size] - penalty * taken[:, None]
            best, chosen = (found.tolist() for found in scores.flatten(1).topk(2 * size, dim=1))
            for prompt, states in enumerate(kept):
                state = states[group]
                if state.done:
                    continue
                beam = group * size
                for rank, (total, place) in enumerate(zip(best[prompt], chosen[prompt], strict=True)):
                    source, token = prompt * beams + group * size + place // scores.shape[-1], place % scores.shape[-1]
                    if token in ends:
                        if rank < size:
                            state.add(total, input_ids[source].tolist())
                        continue
                    tokens[prompt][beam], sources[prompt][beam], totals[prompt][beam] = token, source, total
                    taken[prompt, token] += 1
                    beam += 1
                    if beam == (group + 1) * size:
                        break
                state.look_ahead(best[prompt][0], input_ids.shape[1])
        order = torch.tensor(sources, device=input_ids.device).flatten()
        chosen_tokens = torch.tensor(tokens, device=input_ids.device).view(-1, 1)
        input_ids = torch.cat([input_ids[order], chosen_tokens], dim=1)
        if model_kwargs.get("past_key_values") is not None:
            model_kwargs["past_key_values"].reorder_cache(order)
        if all(state.done for states in kept for state in states):
            break
    for prompt, states in enumerate(kept):
        for group, state in enumerate(states):
            if not state.done:
                for beam in range(group * size, (group + 1) * size):
                    state.add(totals[prompt][beam], input_ids[prompt * beams + beam].tolist())
    return _result(model, generation_config, kept, wanted, ends, pad, input_ids)


def _result(
    model: Any,
    generation_config: GenerationConfig,
    kept: list[list[Group]],
    wanted: int,
    ends: list[int],
    pad: int,
    input_ids: torch.Tensor,
) -> Any:
    longest = generation_config.max_length or 0
    rows: list[list[int]] = []
    scores: list[float] = []
    for states in kept:
        found = sorted((one for state in states for one in state.finished), key=lambda one: -one[0])[:wanted]
        for score, ids in found:
            rows.append(ids + ends[:1] if len(ids) < longest else ids)
            scores.append(score)
    length = max(map(len, rows))
    sequences = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=input_ids.device)
    if not generation_config.return_dict_in_generate:
        return sequences
    output = GenerateBeamEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateBeamDecoderOnlyOutput
    return output(sequences=sequences, sequences_scores=torch.tensor(scores, device=input_ids.device))
