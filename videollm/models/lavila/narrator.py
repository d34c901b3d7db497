"""LaViLa's narrator: a GPT-2 that looks at a clip through gated cross-attention and says what happens in it.

Notation: B clips, S sentences of a clip, T frames, N visual tokens of the encoder, Q of the decoder, L text tokens,
D width, H heads.
Source: Zhao et al., "LaViLa" (2022), section 3.1; Alayrac et al., "Flamingo" (2022) for the gates; Yu et al., "CoCa"
(2022) for the pooling of visual tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation.logits_process import LogitsProcessor
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Block, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from .configuration_lavila import LavilaNarratorConfig
from .diverse_beams import diverse_beam_search
from .losses import caption_loss
from .timesformer import LavilaPreTrainedModel, LavilaVisionModel

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""What a layer looks at: keys and values of the visual tokens, each float ``(B, H, Q, D/H)``."""


class VisualPool(nn.Module):
    """Learned queries read any number of visual tokens; all heads share one key and one value of each."""

    def __init__(self, config: LavilaNarratorConfig) -> None:
        super().__init__()
        assert config.pool_num_heads is not None
        width, seen = config.text_config.hidden_size, config.vision_config.hidden_size
        inner = config.pool_num_heads * config.pool_head_dim
        self.num_heads = config.pool_num_heads
        self.queries = nn.Parameter(torch.zeros(config.num_query_tokens, width))
        self.norm_queries = nn.LayerNorm(width, bias=False)
        self.norm_seen = nn.LayerNorm(seen, bias=False)
        self.to_query = nn.Linear(width, inner, bias=False)
        self.to_key_value = nn.Linear(seen, 2 * config.pool_head_dim, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.layernorm = nn.LayerNorm(width, bias=False)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Float ``(B, N, D_vision)`` to ``(B, Q, D_text)``."""
        queries = self.to_query(self.norm_queries(self.queries)).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        key, value = self.to_key_value(self.norm_seen(seen))[:, None].chunk(2, dim=-1)
        # The heads of a query stand under each other: they all look at the same keys.
        rows = queries.reshape(1, 1, -1, queries.shape[-1]).expand(len(seen), -1, -1, -1)
        pooled = nn.functional.scaled_dot_product_attention(rows, key, value)
        pooled = pooled.reshape(len(seen), self.num_heads, -1, queries.shape[-1]).transpose(1, 2).flatten(2)
        return self.layernorm(self.to_out(pooled))


class VisualAttention(nn.Module):
    """Tokens look at the visual tokens of their clip. There is no order in these, and so no mask."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_attn = Conv1D(config.hidden_size, config.hidden_size)
        self.c_attn = Conv1D(2 * config.hidden_size, config.hidden_size)
        self.c_proj = Conv1D(config.hidden_size, config.hidden_size)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def keys_values(self, visual_tokens: torch.Tensor) -> KeysValues:
        """Of visual tokens, float ``(B, Q, D)``."""
        states = self.c_attn(visual_tokens).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return states[0], states[1]

    def forward(self, hidden_states: torch.Tensor, seen: KeysValues) -> torch.Tensor:
        """Float ``(B S, L, D)``, the sentences of a clip one after the other, to the same."""
        key, value = seen
        rows, length, _ = hidden_states.shape
        # Without an order, the tokens of all sentences of a clip are one set of queries: its keys are never repeated.
        query = self.q_attn(hidden_states).view(len(key), -1, self.num_heads, key.shape[-1]).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.resid_dropout(self.c_proj(attended.transpose(1, 2).reshape(rows, length, -1)))


class NarratorBlock(GPT2Block):
    """GPT-2's block, before it, in some layers, a look at the clip; without visual tokens it is GPT-2's block."""

    def __init__(self, config: GPT2Config, layer_idx: int, looks: bool, gated: bool) -> None:
        super().__init__(config, layer_idx=layer_idx)
        # Any: absent (None) in layers that do not look, and gates in a model without them.
        self.crossattention: Any = None
        self.ln_cross_attn: Any = None
        self.mlp_crossattention: Any = None
        self.ln_2_crossattention: Any = None
        self.alpha_cattn: Any = None
        self.alpha_dense: Any = None
        if looks:
            width, eps = config.hidden_size, config.layer_norm_epsilon
            inner = config.n_inner if config.n_inner is not None else 4 * width
            squared = GPT2Config(**config.to_diff_dict() | {"activation_function": "relu2"})
            self.ln_cross_attn = nn.LayerNorm(width, eps=eps)
            self.crossattention = VisualAttention(config)
            self.alpha_cattn = nn.Parameter(torch.zeros(())) if gated else None
            self.ln_2_crossattention = nn.LayerNorm(width, eps=eps)
            self.mlp_crossattention = GPT2MLP(inner, squared)
            self.alpha_dense = nn.Parameter(torch.zeros(())) if gated else None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: torch.Tensor,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: None = None,
        visual_states: list[KeysValues | None] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Float ``(B S, L, D)`` to the same; ``visual_states`` has, for every layer that looks, what it sees."""
        seen = None if visual_states is None else visual_states[self.attn.layer_idx]
        if seen is not None:
            looked = self.crossattention(self.ln_cross_attn(hidden_states), seen)
            hidden_states = hidden_states + _gated(looked, self.alpha_cattn)
            thought = self.mlp_crossattention(self.ln_2_crossattention(hidden_states))
            hidden_states = hidden_states + _gated(thought, self.alpha_dense)
        return super().forward(hidden_states, past_key_values, attention_mask, None, **kwargs)


def _gated(branch: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    return branch if gate is None else gate.tanh() * branch


class LavilaNarrator(LavilaPreTrainedModel, GenerationMixin):
    """Clips to sentences."""

    config_class = LavilaNarratorConfig
    main_input_name = "input_ids"
    _no_split_modules = ["SpaceTimeBlock", "NarratorBlock"]  # noqa: RUF012 (declared by the library)
    _skip_keys_device_placement = ["past_key_values", "visual_states"]  # noqa: RUF012 (declared by the library)

    def __init__(self, config: LavilaNarratorConfig) -> None:
        super().__init__(config)
        self.vision_model = LavilaVisionModel(config.vision_config)
        self.visual_pool = VisualPool(config)
        self.language_model = GPT2LMHeadModel(config.text_config)
        layers = self.language_model.transformer.h
        for index in range(len(layers)):
            looks = index % config.cross_attention_frequency == 0
            layers[index] = NarratorBlock(config.text_config, index, looks, config.gated_cross_attention)
        self.post_init()
        if self.generation_config is not None:
            self.generation_config.bos_token_id = config.bos_token_id
            self.generation_config.eos_token_id = config.eos_token_id
            self.generation_config.pad_token_id = config.pad_token_id
            self.generation_config.max_length = config.max_text_tokens

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, VisualPool):
            init.normal_(module.queries, mean=0.0, std=std)
        elif isinstance(module, NarratorBlock) and module.crossattention is not None:
            for gate in (module.alpha_cattn, module.alpha_dense):
                if gate is not None:
                    init.zeros_(gate)
        elif isinstance(module, Conv1D):
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    # ---- sight

    def get_visual_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the decoder looks at.

        Args:
            pixel_values: float ``(B, T, 3, H, W)``, normalised.

        Returns:
            float ``(B, num_query_tokens, D_text)``.

        Raises:
            ValueError: see `LavilaVisionModel.forward`.
        """
        return self.visual_pool(self.vision_model(pixel_values).last_hidden_state)

    def get_visual_states(self, visual_tokens: torch.Tensor) -> list[KeysValues | None]:
        """Keys and values of visual tokens, once for all tokens and all sentences of their clips.

        Args:
            visual_tokens: float ``(B, num_query_tokens, D_text)``.

        Returns:
            for each layer of the decoder: what it sees; None where it does not look.
        """
        blocks: Any = self.language_model.transformer.h
        return [
            None if block.crossattention is None else block.crossattention.keys_values(visual_tokens)
            for block in blocks
        ]

    # ---- words

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        visual_tokens: torch.Tensor | None = None,
        visual_states: list[KeysValues | None] | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token at every place, and the loss where there are labels.

        Args:
            input_ids: int ``(B S, L)``: the S sentences of each clip, one after the other; begin token first.
            attention_mask: ``(B S, L)``, 0 at padding. Padding on the right needs none.
            position_ids, past_key_values, inputs_embeds, use_cache, logits_to_keep: as of GPT-2.
            pixel_values: float ``(B, T, 3, H, W)``; or ``visual_tokens`` (`get_visual_tokens`), or ``visual_states``
                (`get_visual_states`). Without any, the decoder speaks as GPT-2 does.
            labels: int ``(B S, L)``, as ``input_ids``, -100 where nothing is to be learned.

        Returns:
            loss (if labels; see `caption_loss`), logits float ``(B S, L, vocabulary)``, past_key_values.

        Raises:
            ValueError: for two kinds of sight at once, or rows that are no multiple of the clips.
        """
        if sum(given is not None for given in (pixel_values, visual_tokens, visual_states)) > 1:
            raise ValueError("the narrator takes pixel_values, visual_tokens or visual_states: give one of them")
        if pixel_values is not None:
            visual_tokens = self.get_visual_tokens(pixel_values)
        if visual_tokens is not None:
            visual_states = self.get_visual_states(visual_tokens)
        rows = next(len(given) for given in (input_ids, inputs_embeds) if given is not None)
        clips = next((len(seen[0]) for seen in visual_states or [] if seen is not None), rows)
        if rows % clips:
            raise ValueError(f"{rows} sentences for {clips} clips were given; give each clip as many as the others")
        kwargs.pop("num_items_in_batch", None)
        kwargs.pop("return_dict", None)
        outputs = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            visual_states=visual_states,
            return_dict=True,
            **kwargs,
        )
        loss = None if labels is None else caption_loss(outputs.logits[:, :-1], labels[:, 1:]).loss
        return CausalLMOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    # ---- generation

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As any model of the library, with ``pixel_values`` or ``visual_tokens``; one sentence begins of itself.

        ``num_beam_groups`` with ``diversity_penalty`` asks for `diverse_beam_search`. Samples are drawn from all words,
        as published, unless ``top_k`` or ``top_p`` say otherwise: the library would take the 50 likeliest.
        """
        if kwargs.get("generation_config") is None:
            kwargs.setdefault("top_k", 0 if kwargs.get("do_sample") else None)
        if (kwargs.get("num_beam_groups") or 1) > 1:
            kwargs.setdefault("custom_generate", diverse_beam_search)
        return super().generate(*args, **kwargs)

    def _expand_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Beams and samples: only sentences are repeated. All of a clip's look at the same keys and values."""
        pixel_values, visual_tokens = (model_kwargs.pop(name, None) for name in ("pixel_values", "visual_tokens"))
        if pixel_values is not None:
            visual_tokens = self.get_visual_tokens(pixel_values)
        if visual_tokens is not None:
            model_kwargs["visual_states"] = self.get_visual_states(visual_tokens)
        return super()._expand_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue]
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )


class EntropyMeter(LogitsProcessor):
    """The published score of a sampled sentence, taken while it is generated; it changes nothing.

    Give it to ``generate(logits_processor=[meter])``; it stands before temperature and filters.

    Source: the released narrator, which calls it a perplexity: the exponential of the mean entropy of the next token,
    up to and including the one that ends the sentence. Low for a sentence at every word of which the model was sure.
    """

    def __init__(self, eos_token_id: int, prompt_tokens: int = 1) -> None:
        """Args:
        eos_token_id: the token that ends a sentence.
        prompt_tokens: what stands before the first generated token; end tokens among it do not count.
        """
        self.eos_token_id = eos_token_id
        self.prompt_tokens = prompt_tokens
        self._total: torch.Tensor | None = None
        self._steps: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        running = (input_ids[:, self.prompt_tokens :] != self.eos_token_id).all(dim=1)
        logarithms = scores.float().log_softmax(dim=-1)
        entropy = -(logarithms.exp() * logarithms).nan_to_num(nan=0.0).sum(dim=-1) * running
        self._total = entropy if self._total is None else self._total + entropy
        self._steps = running.long() if self._steps is None else self._steps + running
        return scores

    @property
    def scores(self) -> torch.Tensor:
        """Of each sentence, float ``(B S,)``, at least 1.

        Raises:
            ValueError: before anything was generated.
        """
        if self._total is None or self._steps is None:
            raise ValueError("nothing was generated with this meter yet; give it to generate(logits_processor=[meter])")
        return (self._total / self._steps).exp()
