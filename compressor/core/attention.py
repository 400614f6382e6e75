"""torch's multi-head attention with a forward that follows its tensors' sizes.

`nn.MultiheadAttention` assumes that queries, keys and values are as wide as the embedding. Once heads,
dims of heads or the embedding are cut, they need not be. The class here computes the same function for
any widths, from the same parameters; a capture runs it in place of torch's, and a model that was cut
keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SizedMultiheadAttention", "resize", "sized"]


class SizedMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` for any width of queries, keys and values.

    All widths are read off the parameters and `num_heads`. `head_dim` stays what it was before any
    cut: the scale of the softmax comes from it, so that what remains computes what it did.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As in `nn.MultiheadAttention`: the attended values, and the weights where they are asked for."""
        is_batched = query.dim() == 3
        if not is_batched:
            query, key, value = (x.unsqueeze(0 if self.batch_first else 1) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        q, k, v = self._projected(query, key, value)
        if not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        q, k, v = (_heads(x, self.num_heads) for x in (q, k, v))
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        mask = self._mask(q, k, attn_mask, key_padding_mask)
        weights = None
        if need_weights:
            attended, weights = self._weighted(q, k, v, mask)
        else:
            dropout = self.dropout if self.training else 0.0
            scale = self.head_dim**-0.5
            attended = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        out = self.out_proj(attended.transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            out = out.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return out, weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values_width = self.out_proj.weight.shape[1]
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            width = weights[0].shape[0]
        else:
            width = (self.in_proj_weight.shape[0] - values_width) // 2
        sizes = [width, width, values_width]
        biases = [None, None, None] if self.in_proj_bias is None else self.in_proj_bias.split(sizes)
        if self.in_proj_weight is not None:
            if query is key and key is value:
                q, k, v = functional.linear(query, self.in_proj_weight, self.in_proj_bias).split(sizes, -1)
                return q, k, v
            weights = self.in_proj_weight.split(sizes)
        q, k, v = map(functional.linear, (query, key, value), weights, biases)
        return q, k, v

    def _extended(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Keys or values with one more token that is learnt, and one of zeros where asked for."""
        parts = [x]
        if bias is not None:
            parts.append(bias.expand(x.shape[0], -1, -1))
        if self.add_zero_attn:
            parts.append(torch.zeros_like(x[:, :1]))
        return torch.cat(parts, 1) if len(parts) > 1 else x

    def _mask(
        self, q: Tensor, k: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores [batch or 1, heads or 1, queries or 1, keys], or None."""
        masks = []
        if attn_mask is not None:
            mask = _additive(attn_mask, q.dtype)
            masks.append(mask if mask.dim() == 2 else mask.unflatten(0, (q.shape[0], -1)))
        if key_padding_mask is not None:
            masks.append(_additive(key_padding_mask, q.dtype)[:, None, None, :])
        if not masks:
            return None
        total = masks[0] if len(masks) == 1 else masks[0] + masks[1]
        extra = k.shape[2] - total.shape[-1]
        return functional.pad(total, (0, extra)) if extra else total

    def _weighted(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
        if self.dropout > 0:
            weights = functional.dropout(weights, self.dropout, self.training)
        return weights @ v, weights


def _heads(x: Tensor, count: int) -> Tensor:
    """[batch, tokens, heads · dims] to [batch, heads, tokens, dims]."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


@contextmanager
def sized(*models: nn.Module) -> Iterator[None]:
    """Within, every `nn.MultiheadAttention` of the models runs the forward that follows its sizes."""
    found = [m for model in models for m in model.modules() if type(m) is nn.MultiheadAttention]
    try:
        for module in found:
            module.__class__ = SizedMultiheadAttention
        yield
    finally:
        for module in found:
            module.__class__ = nn.MultiheadAttention


def resize(module: nn.Module) -> None:
    """Have a multi-head attention that was cut follow its sizes from now on; others stay as they are."""
    if type(module) is nn.MultiheadAttention:
        module.__class__ = SizedMultiheadAttention
    if isinstance(module, SizedMultiheadAttention):
        # torch's fused encoder layers ask for this, and assume equal widths where it is set.
        module._qkv_same_embed_dim = False
