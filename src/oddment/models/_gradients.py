"""The fixed front end of the small-image models: how steep a picture is, in four directions, cell by cell.

Brightness itself does not enter: gradients are split into their positive and negative parts along rows and columns,
blurred, averaged over cells, raised to a power below one, and the whole picture is brought to unit length, so that
neither exposure nor overall contrast changes anything. Of the steps, the unit length helps most.

Of colour pictures, what colours lie where can be told as well: means over a few large cells, relative to the brightness
of the whole picture, so that exposure still changes nothing.

Source: cells of rectified gradients after Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection"
(2005), section 6; the square root before a Euclidean distance after Arandjelović and Zisserman, "Three things everyone
should know to improve object retrieval" (2012), section 3.
Differs in four directions instead of nine, in a Gaussian blur instead of trilinear voting, and in one length for the
whole picture instead of one a block: how strong an edge is beside the others counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._base import sum_rows

if TYPE_CHECKING:
    from oddment.models._registry import Shape

__all__ = ["LARGEST_CELL", "GradientFeatures", "fit_pixels"]

# A cell is two pixels in a picture of 28, and pictures have at least that many cells along the longer side.
_CELLS = 14
LARGEST_CELL = 4.0
"""Pixels along a cell's side in larger pictures."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in `images.prepare`
# Added before the power, whose slope at 0 would magnify the noise of flat places.
_PIXELS_AT_ONCE = 2**18
_FLOOR = 1e-6
_COLOURED = 4  # cells along a side, that colours are averaged over
_DARK = 0.02  # added to the brightness of the whole picture, for those that are black
_HARDLY = 1e-3  # of a cell, that is real: less is nothing
_TAIL = 1e-7  # weights below this are left out of the blur
_EVEN = 1e-7  # of the largest value of a map, everywhere


class GradientFeatures(nn.Module):
    """Features of pictures of one shape, a vector of unit length each. Nothing in here is learnt.

    Gray pictures have four maps: the rise and the fall along columns and along rows. Colour pictures have those of the
    brightness and of two opponent channels, twelve in all.

    Args:
        shape: channels, height and width of the images.
        power: of the mean gradient of a cell.
        largest_cell: pixels along a cell's side in pictures that are not small.
        colour: weight of the colours of colour pictures beside their gradients; 0 leaves them out.

    Attributes:
        maps: gradient features a cell.
        grid: cells along height and width.
        width: features a picture.
    """

    across: Tensor
    down: Tensor
    opponents: Tensor
    power: Tensor
    colour_across: Tensor
    colour_down: Tensor
    lift_across: Tensor
    lift_down: Tensor

    def __init__(
        self, shape: Shape, power: float = 0.5, *, largest_cell: float = LARGEST_CELL, colour: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("power", torch.tensor(power))
        longest = max(shape.height, shape.width)
        cell = longest / min(longest, max(_CELLS, round(longest / largest_cell)))
        rows, columns = (max(1, round(side / cell)) for side in (shape.height, shape.width))
        self.grid = (rows, columns)
        self.maps = 4 * shape.channels
        self.width = self.maps * rows * columns
        opponents = torch.tensor([_LUMA, (0.5, -0.5, 0.0), (0.25, 0.25, -0.5)]).view(3, 3, 1, 1)
        self.register_buffer("opponents", opponents, persistent=False)
        # Rows first: `down` gathers pixel rows into cells, `across` pixel columns.
        self.register_buffer("down", _pooling(shape.height, rows, cell / 2), persistent=False)
        self.register_buffer("across", _pooling(shape.width, columns, cell / 2).T.contiguous(), persistent=False)
        self.colour, self.plain = (colour if shape.channels == 3 else 0.0), self.width
        if self.colour:
            sides = (("down", shape.height, rows), ("across", shape.width, columns))
            large = {name: min(_COLOURED, cells) for name, _, cells in sides}
            self.width += 3 * large["down"] * large["across"]
            for name, pixels, cells in sides:
                self.register_buffer(f"colour_{name}", _pooling(pixels, large[name], cell / 2), persistent=False)
                self.register_buffer(f"lift_{name}", _lift(large[name], cells), persistent=False)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return features (N, width).

        Args:
            images: (N, C, H, W), nominally in [0, 1].
            mask: (N, 1, H, W), 1 on real pixels; a gradient that reaches padding is 0.
        """
        images = seen = images * mask
        if images.shape[1] == 3:
            images = F.conv2d(images, self.opponents)
        horizontal = _slope(images, mask)
        vertical = _slope(images.transpose(2, 3), mask.transpose(2, 3)).transpose(2, 3)
        slopes = torch.cat([horizontal.relu(), (-horizontal).relu(), vertical.relu(), (-vertical).relu()], 1)
        cells = torch.matmul(torch.matmul(self.down, slopes), self.across)
        steep = (cells.clamp_min(0) + _FLOOR).pow(self.power).flatten(1)
        steep = steep / sum_rows(steep.square()).sqrt()
        return torch.cat([steep, self._colours(seen, mask)], 1) if self.colour else steep

    def _colours(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the colours (N, 3 · cells) of large cells, of pictures whose padding is 0."""
        count = images.shape[1] * sum_rows(mask.flatten(1))
        bright = sum_rows(images.flatten(1)) / count + _DARK
        sums, area = (
            torch.matmul(torch.matmul(self.colour_down, each), self.colour_across.T).flatten(2)
            for each in (images, mask)
        )
        colours = (sums / (area + _HARDLY)).flatten(1) / bright
        weighted: Tensor = colours * (self.colour / (len(self.colour_down) * len(self.colour_across)) ** 0.5)
        return weighted

    def of_many(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the same, a few pictures at a time: what lies between must not leave the processor's caches."""
        size = max(1, _PIXELS_AT_ONCE // (int(images.shape[2]) * int(images.shape[3])))
        parts = zip(torch.split(images, size), torch.split(mask, size), strict=True)
        return torch.cat([self(some, real) for some, real in parts])

    def errors(self, left: Tensor) -> Tensor:
        """Return the squared error (N, cells) of each cell, for what is left over of features (N, width)."""
        gradients = left[:, : self.plain] if self.colour else left
        errors = gradients.square().view(-1, self.maps, self.grid[0] * self.grid[1]).sum(1)
        if not self.colour:
            return errors
        large = (len(self.colour_down), len(self.colour_across))
        colours = left[:, self.plain :].square().view(-1, 3, *large).sum(1)
        return errors + torch.matmul(torch.matmul(self.lift_down, colours), self.lift_across.T).flatten(1)

    def spread(self, cells: Tensor, score: Tensor, mask: Tensor) -> Tensor:
        """Return a map (N, H, W) that shows where, 0 on padding, and whose mean over real pixels is the score.

        Args:
            cells: (N, rows · columns), not negative.
            score: (N,).
            mask: (N, 1, H, W), 1 on real pixels.
        """
        grid = cells.view(-1, *self.grid)
        pixels = torch.matmul(torch.matmul(self.down.T, grid), self.across.T)
        pixels = pixels / (self.down.sum(0)[:, None] * self.across.sum(1)[None])
        real = mask[:, 0]
        # Where nothing is left over a map needs somewhere to lie.
        where = (pixels + _EVEN * (1 + pixels.amax((1, 2), keepdim=True))) * real
        return where * (score[:, None] * real.flatten(1).sum(1, keepdim=True) / sum_rows(where.flatten(1)))[:, :, None]


def fit_pixels(codes: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Fit pictures to codes by ridge regression.

    Args:
        codes: (n, L).
        pixels: (n, P).

    Returns:
        canvas (1, P) and strokes (P, L), so that pictures are about canvas + codes @ strokes.T.
    """
    x, y = codes.double(), pixels.double()
    middle, canvas = x.mean(0, keepdim=True), y.mean(0, keepdim=True)
    x, y = x - middle, y - canvas
    gram = x.T @ x
    gram += (1e-3 * gram.diagonal().mean() + 1e-9) * torch.eye(len(gram), dtype=gram.dtype)
    strokes = torch.linalg.solve(gram, x.T @ y).T
    return (canvas - middle @ strokes.T).float(), strokes.float().contiguous()


def _slope(images: Tensor, mask: Tensor) -> Tensor:
    """Return central differences along the last dimension, 0 at the border and beside padding."""
    if images.shape[3] < 3:
        return torch.zeros_like(images)
    return F.pad((images[..., 2:] - images[..., :-2]) * mask[..., 2:] * mask[..., :-2], (1, 1))


def _lift(large: int, cells: int) -> Tensor:
    """Return float32 (cells, large): what each of some large cells gives to the small ones in it, in equal shares."""
    place = (torch.arange(cells) * large) // cells
    shares = F.one_hot(place, large).float()
    return shares / shares.sum(0)


def _pooling(pixels: int, cells: int, sigma: float) -> Tensor:
    """Return float32 (cells, pixels): a Gaussian blur of `sigma` pixels, then the mean over each cell.

    Cells need not be whole pixels: one that a border cuts counts with its share.
    """
    place = torch.arange(pixels, dtype=torch.float64)
    kernel = torch.exp(-torch.arange(-pixels, pixels + 1, dtype=torch.float64).square() / (2 * sigma * sigma))
    blur = torch.exp(-(place[:, None] - place[None]).square() / (2 * sigma * sigma)) / kernel.sum()
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    overlap = torch.minimum(edges[1:, None], place + 1) - torch.maximum(edges[:-1, None], place)
    share = overlap.clamp_min(0) * cells / pixels
    weights = share @ blur
    # Tails so small that float32 calls them denormal make the products ten times slower.
    return torch.where(weights < _TAIL, 0.0, weights).float()
