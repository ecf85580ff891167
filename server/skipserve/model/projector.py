"""What makes rows of the decoder of a picture's features: a choice of the checkpoint.

Shapes: N pictures, P features of a picture, E their width, R rows, D the embedding's width, W width
of a mapping module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve.model.activation import activation_function
from skipserve.model.config import ModelConfig
from skipserve.model.weights import Weights, take_linear
from skipserve_kernels.plain.linear.op import Linear, linear, pack
from skipserve_policies.sizes import MappingSizes

_LAYER_NORM_EPSILON = 1e-5


class Projector(Protocol):
    """Makes rows of features."""

    def __call__(self, features: Tensor) -> Tensor:
        """Turn features [N, P, E] into rows [N, R, D]."""


def load_projector(config: ModelConfig, weights: Weights) -> Projector:
    """Read the projector that a checkpoint has.

    Raises:
        ModelFilesError: a tensor is missing or has another shape, or the activation is unknown.
    """
    sizes = config.sizes.projector
    if isinstance(sizes, MappingSizes):
        return MappingModule.load(config, sizes, weights)
    return MlpProjector.load(config, weights)


@dataclass(frozen=True)
class MlpProjector:
    """LLaVA's: two linear layers with an activation between them; a row of each feature."""

    first: Linear
    second: Linear
    activation: Callable[[Tensor], Tensor]

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights) -> Self:
        """Read the layers."""
        width, hidden = config.sizes.vision.feature_size, config.sizes.decoder.embedding_size
        has_bias = config.projector_bias
        return cls(
            take_linear(weights, {"projector.linear_1": hidden}, width, has_bias=has_bias),
            take_linear(weights, {"projector.linear_2": hidden}, hidden, has_bias=has_bias),
            activation_function("projector_hidden_act", config.projector_activation),
        )

    def __call__(self, features: Tensor) -> Tensor:
        """Turn features [N, P, E] into rows [N, P, D]."""
        return linear(self.activation(linear(features, self.first)), self.second)


@dataclass(frozen=True)
class _Norm:
    gain: Tensor
    bias: Tensor

    @classmethod
    def load(cls, weights: Weights, name: str, width: int) -> Self:
        return cls(weights.take(f"{name}.weight", width), weights.take(f"{name}.bias", width))

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, _LAYER_NORM_EPSILON)


@dataclass(frozen=True)
class _MappingLayer:
    """A pre-norm layer of a transformer encoder, of which the last rows alone may be wanted."""

    norms: tuple[_Norm, _Norm]
    query: Linear
    key_value: Linear
    output: Linear
    up: Linear
    down: Linear
    num_heads: int

    @classmethod
    def load(cls, weights: Weights, name: str, sizes: MappingSizes) -> Self:
        width, inner = sizes.hidden_size, sizes.ffn_size
        in_weight = weights.take(f"{name}.attention.in_proj_weight", 3 * width, width)
        in_bias = weights.take(f"{name}.attention.in_proj_bias", 3 * width)

        def read(part: str, num_outputs: int, num_inputs: int) -> Linear:
            return take_linear(weights, {f"{name}.{part}": num_outputs}, num_inputs, has_bias=True)

        return cls(
            norms=(
                _Norm.load(weights, f"{name}.norm1", width),
                _Norm.load(weights, f"{name}.norm2", width),
            ),
            query=pack(in_weight[:width].clone(), in_bias[:width].clone()),
            key_value=pack(in_weight[width:].clone(), in_bias[width:].clone()),
            output=read("attention.out_proj", width, width),
            up=read("ffn.up", inner, width),
            down=read("ffn.down", width, inner),
            num_heads=sizes.num_heads,
        )

    def __call__(self, x: Tensor, num_wanted: int) -> Tensor:
        """Return the last rows of the layer's output, [N, num_wanted, W], for its input [N, T, W].

        What is not wanted of the output is not computed; keys and values are, of all rows.
        """
        normed, kept = self.norms[0](x), x[:, -num_wanted:]
        query = self._heads(linear(normed[:, -num_wanted:], self.query))
        key, value = (self._heads(it) for it in linear(normed, self.key_value).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        kept = kept + linear(mixed.transpose(1, 2).flatten(2), self.output)
        return kept + linear(F.relu(linear(self.norms[1](kept), self.up)), self.down)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class MappingModule:
    """Learned queries read the features, and become the rows.

    Features and queries, the queries last, go through the layers of a transformer encoder; two
    linear layers make rows of what the queries have become. Source: arXiv 2410.09454.

    Attributes:
        queries: [R, W].
    """

    input: Linear
    queries: Tensor
    layers: tuple[_MappingLayer, ...]
    output: Linear
    to_rows: Linear

    @classmethod
    def load(cls, config: ModelConfig, sizes: MappingSizes, weights: Weights) -> Self:
        """Read the module."""
        width, hidden = config.sizes.vision.feature_size, config.sizes.decoder.embedding_size

        def read(name: str, num_outputs: int, num_inputs: int) -> Linear:
            parts = {f"projector.{name}": num_outputs}
            return take_linear(weights, parts, num_inputs, has_bias=True)

        return cls(
            input=read("input", sizes.hidden_size, width),
            queries=weights.take("projector.queries", sizes.num_queries, sizes.hidden_size),
            layers=tuple(
                _MappingLayer.load(weights, f"projector.layers.{layer}", sizes)
                for layer in range(sizes.num_layers)
            ),
            output=read("output", width, sizes.hidden_size),
            to_rows=read("to_llm", hidden, width),
        )

    def __call__(self, features: Tensor) -> Tensor:
        """Turn features [N, P, E] into rows [N, R, D]."""
        queries = self.queries.expand(len(features), -1, -1)
        x = torch.cat([linear(features, self.input), queries], dim=1)
        for layer in self.layers[:-1]:
            x = layer(x, num_wanted=x.shape[1])
        x = self.layers[-1](x, num_wanted=len(self.queries))
        return linear(linear(x, self.output), self.to_rows)
