"""A convolutional variational autoencoder of grids: images, and the spectrograms of sounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.seeding import generator, seeded

Shape = tuple[int, int, int]
"""Channels, height and width."""
EpochCallback = Callable[[int, int, float], None]
"""(epoch from 1, epochs, loss)."""

COARSEST = 7
"""Grids are halved until neither side is longer."""
CHANNELS = 32
BATCH = 64
LEARNING_RATE = 2e-3
WARM_UP = 0.04
"""Share of the steps in which the learning rate rises; then it falls by half a cosine."""
LONGEST_GRADIENT = 1000.0
NUMBER_WEIGHT = 20.0
"""Of the squared error of numbers beside a grid, whose cells are many."""
DIVERGENCE_WEIGHT = 2e-4
"""Of the divergence from the standard normal, both per number: light, so that noise blurs little."""
LIKENESS_WEIGHT = 0.05
"""Of the absolute difference in local features, summed, beside the summed cross-entropy."""
LOCAL_FEATURES = (16, 32)
"""Features of each scale."""
CRITIC_WEIGHT, CRITIC_LIKENESS_WEIGHT = 20.0, 40.0
"""Of the critic's score, and of the difference in its features; means over cells."""
CRITIC_CHANNELS = 24
CRITIC_START = 0.1
"""Share of the steps before the critic joins."""
SHARPENED, MOST_SHARPENING = 512, 1.0
"""Rows that contrast or relief are fitted on, and the most that is added."""
MOVE, BEND = 0.08, 0.08
"""Training grids are moved by up to this share of a side, and their axes bent by this deviation."""


@dataclass(frozen=True)
class GridRows:
    """What the autoencoder is fitted on."""

    levels: Float[Tensor, "row channel height width"]
    """Between 0 and 1."""
    numbers: Float[Tensor, "row number"]
    """Standardised numbers beside each grid; none for images."""

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def flat(self) -> Float[Tensor, "row size"]:
        """Levels, then numbers."""
        return torch.cat([self.levels.flatten(1), self.numbers], dim=1)

    def take(self, rows: Tensor) -> GridRows:
        """The given rows."""
        return GridRows(self.levels[rows], self.numbers[rows])


class ConvolutionalAutoencoder(nn.Module):
    """Standard rows of grids to latents, and back.

    A linear path, which begins as principal components, with a convolutional one beside it. A sigmoid keeps
    levels in the range of the training rows. Latents are posterior means, standardised on those rows.
    """

    def __init__(self, shape: Shape, numbers: int, width: int, tokens: int) -> None:
        """A network with random weights.

        Args:
            shape: Of the grids.
            numbers: Numbers beside the grid, behind it in a standard row.
            width: Latent width.
            tokens: Tokens that the latents are taken for; they divide the width.
        """
        super().__init__()
        self.shape, self.numbers, self.width, self.tokens = shape, numbers, width, tokens
        self.cells = math.prod(shape)
        depth = max(1, math.ceil(math.log2(max(shape[1:]) / COARSEST)))
        self.coarse = (-(-shape[1] // 2**depth), -(-shape[2] // 2**depth))
        self.margins = (0, self.coarse[1] * 2**depth - shape[2], 0, self.coarse[0] * 2**depth - shape[1])
        channels = [CHANNELS if level == 0 and depth > 1 else 2 * CHANNELS for level in range(depth)]
        wide = channels[-1]
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * shape[0], channels[0], 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(channels[0], 4 * shape[0], 3, padding=1), nn.PixelShuffle(2)]
        for fine, coarse in pairwise(channels):
            down += [nn.SiLU(), nn.Conv2d(fine, coarse, 4, stride=2, padding=1)]
            wider = nn.Conv2d(coarse, 4 * fine, 3, padding=1)
            up = [wider, nn.PixelShuffle(2), nn.SiLU(), _Block(fine), *up]
        self.down = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(wide, wide, 3, padding=1), nn.SiLU())
        self.up = nn.Sequential(_Block(wide), *up)
        flat = wide * math.prod(self.coarse)
        self.posterior, self.unfold = nn.Linear(flat, 2 * width), nn.Linear(width, flat)
        self.project = nn.Linear(self.cells + numbers, width)
        self.expand = nn.Linear(width, self.cells + numbers)
        self.register_buffer("base", torch.zeros(shape))
        self.register_buffer("gain", torch.ones(shape))
        self.register_buffer("contrast", torch.ones(()))
        self.register_buffer("relief", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.base: Tensor
        """Level of a standard 0."""
        self.gain: Tensor
        """Levels in a standard 1."""
        self.contrast: Tensor
        """Factor of logits: what the network is unsure of is grey, and grey edges look blurred."""
        self.relief: Tensor
        """Factor of the logits' detail, which is added."""
        self.mean: Tensor
        self.deviation: Tensor
        """Of each latent number on the training rows."""

    def encode(self, rows: Float[Tensor, "batch size"]) -> Float[Tensor, "batch latent"]:
        """Latents of standard rows."""
        mean, _ = self._code(self.rows(rows))
        return (mean - self.mean) / self.deviation

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch size"]:
        """Standard rows of latents."""
        logits, numbers = self._grids(latents * self.deviation + self.mean)
        levels = self._sharp(logits)
        return torch.cat([((levels - self.base) / self.gain).flatten(1), numbers], dim=1)

    def rows(self, standard: Float[Tensor, "batch size"]) -> GridRows:
        """Standard rows as levels and numbers."""
        grids = standard[:, : self.cells].reshape(-1, *self.shape)
        return GridRows(grids * self.gain + self.base, standard[:, self.cells :])

    def _code(self, rows: GridRows) -> tuple[Tensor, Tensor]:
        """The posterior's means and log variances."""
        padded = F.pad(rows.levels, self.margins, mode="replicate")
        mean, log_variance = self.posterior(self.down(padded).flatten(1)).chunk(2, dim=1)
        return mean + self.project(rows.flat), log_variance.clamp(-10, 4)

    def _grids(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of levels, and numbers."""
        linear = self.expand(code)
        logits = self.up(self.unfold(code).unflatten(1, (-1, *self.coarse)))
        logits = logits[..., : self.shape[1], : self.shape[2]]
        return logits + linear[:, : self.cells].reshape(logits.shape), linear[:, self.cells :]

    @classmethod
    def fit(
        cls,
        standard: Float[Tensor, "row size"],
        base: Float[Tensor, "channel height width"],
        gain: Float[Tensor, "channel height width"],
        *,
        width: int,
        tokens: int,
        epochs: int,
        seed: int,
        name: str,
        pictures: bool,
        device: torch.device,
        on_epoch: EpochCallback | None = None,
    ) -> ConvolutionalAutoencoder:
        """Train on standard rows; on a CPU, seed and name decide everything random.

        The loss is the cross-entropy of levels (squared error of numbers), a light divergence from the
        standard normal, the difference in fixed local features, and, after a while, what a small critic of
        patches finds (a GAN's hinge loss, with its features' difference), which keeps edges sharp.

        Args:
            standard: Training rows.
            base: Level of a standard 0.
            gain: Levels in a standard 1.
            width: Latent width; at most the rows' and a row's numbers, rounded down to whole tokens.
            tokens: Tokens of the latents.
            epochs: Over the rows.
            seed: Of weights, order, noise and bent copies.
            name: Of the modality.
            pictures: Whether the grids are of things seen: training bends them, and contrast sharpens them;
                spectrograms are sharpened by relief.
            device: Where to train.
            on_epoch: Called after each epoch.
        """
        width = max(tokens, min(width, *standard.shape) // tokens * tokens)
        shape = (int(base.shape[0]), int(base.shape[1]), int(base.shape[2]))
        with seeded(seed, "grid autoencoder", name):
            model = cls(shape, standard.shape[1] - base.numel(), width, tokens)
            critic = _Critic(shape[0])
        model.base.copy_(base)
        model.gain.copy_(gain)
        model._begin_as_components(model.rows(standard))
        model, critic = model.to(device), critic.to(device)
        rows = model.rows(standard.to(device))
        _Training(model, critic, rows, epochs, seed, name, pictures).run(on_epoch)
        parts = torch.split(torch.arange(len(rows)), 4 * BATCH)
        order = torch.randperm(len(rows), generator=generator(seed, "sharpening", name))[:SHARPENED]
        with torch.no_grad():
            code = torch.cat([model._code(rows.take(part))[0] for part in parts])
            model._sharpen(rows.take(order), code[order], model.contrast if pictures else model.relief)
        model.mean.copy_(code.mean(0))
        model.deviation.copy_(code.std(0).clamp(min=1e-6))
        return model.cpu()

    def _sharp(self, logits: Tensor) -> Tensor:
        """Levels of logits."""
        return (self.contrast * (logits + self.relief * detail(logits))).sigmoid()

    def _sharpen(self, rows: GridRows, code: Tensor, factor: Tensor) -> None:
        """Set a factor so that decoded rows have as much detail as the rows themselves."""
        wanted, (logits, _) = float(detail(rows.levels).square().mean()), self._grids(code)
        low = float(factor)
        high = low + MOST_SHARPENING
        for _ in range(12):
            factor.fill_((low + high) / 2)
            less = float(detail(self._sharp(logits)).square().mean()) < wanted
            low, high = (float(factor), high) if less else (low, float(factor))

    @torch.no_grad()
    def _begin_as_components(self, rows: GridRows) -> None:
        """Set the linear path to the first principal components, at unit variance."""
        flat = rows.flat.double()
        mean, weight = flat.mean(0), torch.ones_like(flat[0])
        weight[self.cells :] = math.sqrt(NUMBER_WEIGHT)
        _, singular, directions = torch.linalg.svd((flat - mean) * weight, full_matrices=False)
        singular, directions = singular[: self.width], directions[: self.width]
        spread = (singular / math.sqrt(len(flat))).clamp(min=1e-6).unsqueeze(1)
        slope = torch.full_like(mean, 1.0)
        slope[: self.cells] = 6.0  # a logit's change for a level's, roughly, with 0.5 at zero
        middle = torch.zeros_like(mean)
        middle[: self.cells] = 0.5
        self.project.weight.copy_(directions * weight / spread)
        self.project.bias.copy_(-(directions * weight / spread) @ mean)
        self.expand.weight.copy_((directions * spread).T * (slope / weight).unsqueeze(1))
        self.expand.bias.copy_((mean - middle) * slope)
        self.posterior.weight.mul_(0.1)
        self.posterior.bias[self.width :] = -3.0


@dataclass
class _Training:
    """One training of an autoencoder."""

    model: ConvolutionalAutoencoder
    critic: _Critic
    rows: GridRows
    epochs: int
    seed: int
    name: str
    pictures: bool

    def run(self, on_epoch: EpochCallback | None) -> None:
        """Train in place."""
        steps = self.epochs * math.ceil(len(self.rows) / BATCH)
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        critics = torch.optim.AdamW(
            self.critic.parameters(), lr=LEARNING_RATE / 2, betas=(0.5, 0.99), weight_decay=0.0
        )
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
        step = 0
        for epoch in range(self.epochs):
            draw = generator(self.seed, "grid autoencoder", self.name, epoch)
            order = torch.randperm(len(self.rows), generator=draw)
            total = 0.0
            for index in torch.split(order, BATCH):
                batch = self.rows.take(index.to(self.rows.levels.device))
                batch = _bent(batch, draw) if self.pictures else batch
                noise = torch.randn(len(batch), self.model.width, generator=draw).to(batch.levels.device)
                loss, made = self._loss(batch, noise)
                if step >= CRITIC_START * steps:
                    some = slice(len(batch) // 2 + 1)  # enough for the critic, at half the cost
                    self._teach(critics, batch.levels[some], made[some].detach())
                    loss = loss + self._criticism(batch.levels[some], made[some])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST_GRADIENT)
                optimiser.step()
                rate.step()
                step += 1
                total += float(loss.detach()) * len(batch)
            if on_epoch is not None:
                on_epoch(epoch + 1, self.epochs, total / len(self.rows))

    def _loss(self, batch: GridRows, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Without the critic, a sample; and the levels made."""
        mean, log_variance = self.model._code(batch)
        logits, numbers = self.model._grids(mean + noise * (0.5 * log_variance).exp())
        made, cells = logits.sigmoid(), self.model.cells
        error = F.binary_cross_entropy_with_logits(logits, batch.levels, reduction="sum")
        error = error + NUMBER_WEIGHT * (numbers - batch.numbers).square().sum()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        pairs = zip(local_features(made), local_features(batch.levels), strict=True)
        likeness = torch.stack([(one - other).abs().sum() for one, other in pairs]).sum()
        weight = DIVERGENCE_WEIGHT * cells / self.model.width
        return (error + weight * divergence + LIKENESS_WEIGHT * likeness) / len(noise), made

    def _teach(self, critics: torch.optim.Optimizer, real: Tensor, made: Tensor) -> None:
        self.critic.requires_grad_(True)
        loss = F.relu(1 - self.critic(real)[-1]).mean() + F.relu(1 + self.critic(made)[-1]).mean()
        critics.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        critics.step()
        self.critic.requires_grad_(False)

    def _criticism(self, real: Tensor, made: Tensor) -> Tensor:
        *features, score = self.critic(made)
        with torch.no_grad():
            *wanted, _ = self.critic(real)
        pairs = zip(features, wanted, strict=True)
        likeness = torch.stack([(one - other).abs().mean() for one, other in pairs]).sum()
        loss: Tensor = CRITIC_LIKENESS_WEIGHT * likeness - CRITIC_WEIGHT * score.mean()
        return loss


def _rate(share: float) -> float:
    """The learning rate's factor after a share of the steps."""
    return min(1.0, (share + 1e-3) / WARM_UP) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(share, 1.0))))


def _bent(rows: GridRows, draw: torch.Generator) -> GridRows:
    """Copies that are slightly moved, turned, sheared and scaled."""
    count, device = len(rows), rows.levels.device
    maps = torch.eye(2, 3).repeat(count, 1, 1)
    maps[:, :, :2] += BEND * torch.randn(count, 2, 2, generator=draw)
    maps[:, :, 2] = MOVE * (2 * torch.rand(count, 2, generator=draw) - 1)
    places = F.affine_grid(maps, list(rows.levels.shape), align_corners=False).to(device)
    return GridRows(
        F.grid_sample(rows.levels, places, padding_mode="border", align_corners=False), rows.numbers
    )


class _Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


class _Critic(nn.Module):
    """Tells real patches from made ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * CRITIC_CHANNELS
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, CRITIC_CHANNELS, 3, stride=2, padding=1),
                nn.Conv2d(CRITIC_CHANNELS, wide, 3, stride=2, padding=1),
                nn.Conv2d(wide, wide, 3, padding=1),
            ]
        )
        self.score = nn.Conv2d(wide, 1, 3, padding=1)

    def forward(self, levels: Tensor) -> list[Tensor]:
        """The features of each layer, and the score of each patch, higher for real ones."""
        out, features = levels, []
        for layer in self.layers:
            out = F.leaky_relu(layer(out), 0.2)
            features.append(out)
        return [*features, self.score(out)]


def detail(grids: Float[Tensor, "batch channel height width"]) -> Tensor:
    """The difference of each cell from the mean of the 3 x 3 around it."""
    return grids - F.avg_pool2d(F.pad(grids, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def low_level_features(
    grids: Float[Tensor, "batch channel height width"], sides: tuple[int, int]
) -> Float[Tensor, "batch feature"]:
    """Phi of Eq. 14 for grids: local features, averaged over cells and mixed; fixed and differentiable.

    Args:
        grids: In any units.
        sides: As many numbers come out as ``channels`` coarse copies of these sides have: the more of them,
            the more features a cell has, and a cell is up to 4 x 4 of the copies' cells.
    """
    steps = [next(step for step in (4, 2, 1) if side % step == 0) for side in sides]
    cells = (sides[0] // steps[0], sides[1] // steps[1])
    pooled = [F.adaptive_avg_pool2d(features, cells) for features in local_features(grids)]
    mixing = _mixing(grids.shape[1] * steps[0] * steps[1]).to(grids)
    return torch.einsum("fc,bchw->bfhw", mixing, torch.cat(pooled, dim=1)).flatten(1)


@cache
def _mixing(features: int) -> Tensor:
    """Weights from local features to so many."""
    count = sum(LOCAL_FEATURES)
    return torch.randn(features, count, generator=generator("low-level mixing", features)) / math.sqrt(count)


@cache
def _filters(channels: int) -> tuple[Tensor, ...]:
    """Fixed 3 x 3 filters of two layers, which sum to zero: they see edges, not levels."""
    draw, made = generator("low-level filters", channels), []
    for count in LOCAL_FEATURES:
        filters = torch.randn(count, channels, 3, 3, generator=draw) / math.sqrt(9 * channels)
        made.append(filters - filters.mean(dim=(1, 2, 3), keepdim=True))
        channels = count
    return tuple(made)


def local_features(grids: Float[Tensor, "batch channel height width"]) -> list[Tensor]:
    """What two fixed random convolutions see, with ReLU, the second at half the resolution."""
    out, features = grids, []
    for filters in _filters(grids.shape[1]):
        out = F.relu(F.conv2d(out, filters.to(out), padding=1))
        features.append(out)
        out = F.avg_pool2d(out, 2, ceil_mode=True)
    return features
