"""Synthetic videos, rendered on the fly: one colored shape or digit that moves, with everything about it known.

They serve for first steps and for tests of every kind of model: the label is shape x motion, the color or the style,
the text describes the scene, the actions are the velocities, and `input` shows the same scene as outlines (paired
translation). Nothing is read or downloaded, and the same index is the same video on every machine: random numbers come
from the raw bits of PCG64, whose stream NumPy guarantees, and rendering uses only operations that IEEE 754 rounds
exactly.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxvid.names import choice

SHAPES = ("square", "circle", "triangle", "star", "digit")
MOTIONS = ("left", "right", "up", "down", "bounce", "spin", "grow", "shrink")
COLORS = {
    "red": (226, 38, 38),
    "orange": (245, 134, 14),
    "yellow": (246, 222, 36),
    "green": (36, 168, 62),
    "cyan": (38, 200, 214),
    "blue": (42, 84, 232),
    "purple": (136, 48, 196),
    "pink": (246, 112, 182),
}
# Names of the classes, for each thing that a label may be.
LABELS = {
    "class": [f"{shape}_{motion}" for shape in SHAPES for motion in MOTIONS],
    "color": list(COLORS),
    "style": ["filled", "outline"],
}
LENGTHS = {"train": 2**20, "eval": 2**16}
LAYOUTS = ("classes", "pairs", "two_sides", "domains")
TURN = 1024  # steps of a full turn
GRID = 256  # points per side of a shape's distance table, which spans
EXTENT = 1.25  # radii to each side of the shape's center
LAST = 15  # straight paths meet no wall up to this frame: clips of 16 frames are the common case

# A platform's cosine may differ in the last bit; rounded to 2**-15 it is the same everywhere.
COSINE = np.round(np.cos(np.arange(TURN) * (2 * np.pi / TURN)) * 2**15) / 2**15

Draw = Callable[[float, float], float]
Color = tuple[int, int, int]


class Synthetic:
    """Synthetic clips: 2**20 for training, 2**16 others for evaluation.

    An item holds `video` uint8 [T,R,R,3]; `input`, the same scene as outlines, uint8 [T,R,R,3]; `label` int32 [], an
    index into `classes`; `text`, such as "a small red square moves left, then up, on a dark background"; `action`
    float32 [T,2], the step (right, down) of the shape's center from each frame to the next, in frame widths. Scenes do
    not depend on the resolution.

    So it is in the layouts "classes" and "pairs". In "two_sides" `input` is another scene than `video`: in training
    they are of two halves of the scenes, and there are half as many items; in evaluation `truth` uint8 [T,R,R,3] is the
    scene of `input`, filled. "domains" has no `input`, and in evaluation `target` int32 [], another label, and `truth`
    uint8 [T,R,R,3], the same scene with that label.

    Args:
      frames, resolution: T >= 1, R >= 8.
      split: "train" or "eval"; they share no video.
      seed: another seed gives other videos of the same kind.
      stride: every stride-th frame of the scene is rendered, >= 1.
      label: what `label` is: the "class" (shape and motion, 40 such as "square_left"), the "color" (8), or the "style":
        then half of the videos are filled and half are outlines, and nothing else of the scenes changes.
      layout: "classes", "pairs", "two_sides" or "domains".

    Raises ValueError for frames, resolution or stride out of range, another split, label or layout, or a label that the
    layout has not: two_sides has no style, and the domains are colors or styles.
    """

    def __init__(
        self,
        frames: int,
        resolution: int,
        split: str = "train",
        seed: int = 0,
        stride: int = 1,
        label: str = "class",
        layout: str = "classes",
    ):
        if frames < 1 or resolution < 8:
            raise ValueError(f"synthetic videos have frames >= 1 and resolution >= 8, not {frames} and {resolution}")
        if stride < 1:
            raise ValueError(f"synthetic videos have stride >= 1, not {stride}")
        self.frames, self.resolution, self.seed, self.stride = frames, resolution, seed, stride
        self.split, self.label = choice("split", split, LENGTHS), choice("label", label, LABELS)
        self.layout, self.paired = choice("layout", layout, LAYOUTS), layout != "two_sides"
        if (layout, label) in (("domains", "class"), ("two_sides", "style")):
            others = "color or style" if layout == "domains" else "class or color"
            raise ValueError(f"label is {label!r}, and the layout {layout!r} of synthetic videos has {others}")
        self.classes = LABELS[label]

    def __len__(self) -> int:
        return LENGTHS[self.split] // (2 if self.layout == "two_sides" and self.split == "train" else 1)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = self._scene(index)
        if self.layout == "domains":
            del clip["input"]
        if self.layout != "two_sides":
            return clip
        if index >= len(self):
            raise IndexError(f"generated clip {index} of {len(self)}")
        number = LENGTHS[self.split]
        other = self._scene((index + number // 2) % number)
        return {**other, "input": clip["input"]} | ({"truth": clip["video"]} if self.split == "eval" else {})

    def _scene(self, index: int) -> dict[str, np.ndarray]:
        """Clip `index` of the layout "classes"; with `target` and `truth` if it is for the evaluation of domains."""
        draw = random_draws(self.seed, LENGTHS, self.split, index)
        labels = {name: int(draw(0, len(LABELS[name]))) for name in ("class", "color")}
        shape, motion = SHAPES[labels["class"] // len(MOTIONS)], MOTIONS[labels["class"] % len(MOTIONS)]
        color = LABELS["color"][labels["color"]]
        glyph = str(int(draw(0, 10))) if shape == "digit" else shape
        name = f"digit {glyph}" if shape == "digit" else shape
        moments = self.frames * self.stride
        path = _path(motion, draw, moments)
        background, tone = _background(draw, self.resolution)
        main = Body(glyph, COLORS[color], path.center[:-1], path.radius, path.angle)
        bodies = [main]
        distractor, clause = _distractor(draw, moments, tone)
        if distractor:
            bodies.insert(int(draw(0, 2)), distractor)  # behind or in front
        filled, outline = _render(bodies, background, self.frames, self.stride)
        labels["style"] = int(draw(0, 2))  # drawn last, so that the scene is the same for every label
        subject = f"{path.size} {color} {name}".strip()
        article = "an" if subject[0] in "aeiou" else "a"
        clip = {
            "video": outline if self.label == "style" and labels["style"] else filled,
            "input": outline,
            "label": np.asarray(labels[self.label], np.int32),
            "text": np.asarray(f"{article} {subject} {path.clause}{clause}, on a {tone} background"),
            "action": np.diff(path.center[:: self.stride], axis=0).astype(np.float32),
        }
        if self.layout == "domains" and self.split == "eval":
            target = (labels[self.label] + 1 + int(draw(0, len(self.classes) - 1))) % len(self.classes)
            if self.label == "color":
                repainted = main._replace(color=COLORS[self.classes[target]])
                bodies = [repainted if body is main else body for body in bodies]
                truth, _ = _render(bodies, background, self.frames, self.stride)
            else:
                truth = (filled, outline)[target]
            clip |= {"target": np.asarray(target, np.int32), "truth": truth}
        return clip

    @property
    def texts(self) -> list[str]:
        """The texts of the first 1024 clips, which hold every word that occurs."""
        small = Synthetic(self.frames, 8, self.split, self.seed)  # texts do not depend on the resolution
        return [str(small[index]["text"]) for index in range(1024)]

    def summary(self) -> str:
        """See `Source.summary`."""
        size = f"{self.frames} frames of {self.resolution}x{self.resolution}"
        return f"synthetic {self.split}: {len(self):,} clips of {size}, {len(self.classes)} classes, none skipped"


def random_draws(seed: int, lengths: Mapping[str, int], split: str, index: int) -> Draw:
    """Draws for clip `index`, uniform in [low, high): the same numbers on every machine and numpy version.

    Raises IndexError for an index beyond the split's length.
    """
    index = operator.index(index)
    if not 0 <= index < lengths[split]:
        raise IndexError(f"generated clip {index} of {lengths[split]}")
    raw = np.random.PCG64(np.random.SeedSequence([seed, list(lengths).index(split), index])).random_raw(48)
    uniform = iter(((raw >> np.uint64(11)) * 2.0**-53).tolist())
    return lambda low, high: low + (high - low) * next(uniform)


def reflect(position: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """A straight path reflected at the walls `low` and `high`, as often as needed; arrays broadcast."""
    span = high - low
    return low + span - np.abs(np.mod(position - low, 2 * span) - span)


class Path(NamedTuple):
    """The trajectory of a shape. Lengths are in frame widths, x to the right, y down."""

    center: np.ndarray  # [T+1, 2]
    radius: np.ndarray  # [T]
    angle: np.ndarray  # [T] int, clockwise, in steps of 1/TURN
    size: str  # "small", "large" or ""
    clause: str  # of the text, such as "moves left"


class Body(NamedTuple):
    """A shape to render in every frame."""

    glyph: str  # a shape, or a digit "0" to "9"
    color: Color
    center: np.ndarray  # [T, 2]
    radius: np.ndarray  # [T]
    angle: np.ndarray  # [T]


def _path(motion: str, draw: Draw, frames: int) -> Path:
    time = np.arange(frames + 1.0)
    radius, tilt = draw(0.15, 0.22), int(draw(-50, 51))
    size = "small" if radius < 0.17 else "large" if radius > 0.2 else ""
    angle = np.full(frames, tilt)
    if motion in ("grow", "shrink"):
        rate, start = draw(0.009, 0.012), draw(0.09, 0.1)
        start, rate = (start, rate) if motion == "grow" else (0.36 - start, -rate)
        center = np.tile([draw(0.28, 0.72), draw(0.28, 0.72)], (frames + 1, 1))
        return Path(center, reflect(start + rate * time[:-1], 0.08, 0.28), angle, "", f"{motion}s")
    if motion == "spin":
        rate, clockwise = int(draw(36, 72)), draw(0, 1) < 0.5
        center = np.tile([draw(radius, 1 - radius), draw(radius, 1 - radius)], (frames + 1, 1))
        angle = (tilt + (rate if clockwise else -rate) * np.arange(frames)) % TURN
        clause = f"spins {'' if clockwise else 'counter'}clockwise"
        return Path(center, np.full(frames, radius), angle, size, clause)
    line, clause = _bounce(draw, radius, time) if motion == "bounce" else _straight(motion, draw, radius, time)
    center = reflect(line, radius, 1 - radius)
    if motion != "bounce" and np.abs(center[:-1] - line[:-1]).max() > 1e-9:
        clause += ", and comes back"
    return Path(center, np.full(frames, radius), angle, size, clause)


def _bounce(draw: Draw, radius: float, time: np.ndarray) -> tuple[np.ndarray, str]:
    """A diagonal line [T+1,2] that meets a side wall within seven frames, and its clause."""
    speed = np.array([draw(0.032, 0.046), draw(0.032, 0.046)])
    start = np.array([1 - radius - speed[0] * draw(3, 7), draw(radius, 1 - radius)])
    mirrored = np.array([draw(0, 1) < 0.5, draw(0, 1) < 0.5])
    line = start + speed * time[:, None]
    return np.where(mirrored, 1 - line, line), "bounces around"


def _straight(motion: str, draw: Draw, radius: float, time: np.ndarray) -> tuple[np.ndarray, str]:
    """A line [T+1,2] along an axis, and its clause; one in four turns by 90 degrees to the side with more room."""
    speed, turns, turn = draw(0.015, 0.03), draw(0, 1) < 0.25, int(draw(7, 11))
    pace = " slowly" if speed < 0.019 else " quickly" if speed > 0.026 else ""
    axis = 0 if motion in ("left", "right") else 1
    sign = 1 if motion in ("right", "down") else -1
    legs = np.stack([np.minimum(time, turn if turns else np.inf), np.maximum(time - turn, 0) * turns], axis=1) * speed
    start = draw(radius, 1 - radius - speed * (turn if turns else LAST))
    along = start + legs[:, 0]
    aside = draw(radius, 1 - radius)
    side = 1 if aside < 0.5 else -1
    line = np.stack([along if sign > 0 else 1 - along, aside + side * legs[:, 1]], axis=1)
    clause = f"moves {motion}{pace}"
    if turns and turn < len(time) - 2:
        clause += ", then " + (("up", "down") if axis == 0 else ("left", "right"))[side > 0]
    return (line if axis == 0 else line[:, ::-1]), clause


def _distractor(draw: Draw, frames: int, tone: str) -> tuple[Body | None, str]:
    """In two of five videos, a gray shape too small to hide the main one, and its clause."""
    present, radius = draw(0, 1) < 0.4, draw(0.055, 0.075)
    glyph = ("square", "circle", "triangle")[int(draw(0, 3))]
    shade = int(draw(140, 170)) if tone == "dark" else int(draw(80, 110))
    start = np.array([draw(radius, 1 - radius), draw(radius, 1 - radius)])
    speed = np.array([draw(-0.03, 0.03), draw(-0.03, 0.03)])
    center = reflect(start + speed * np.arange(frames)[:, None], radius, 1 - radius)
    if not present:
        return None, ""
    body = Body(glyph, (shade, shade, shade), center, np.full(frames, radius), np.zeros(frames, int))
    # The captions keep this spelling: places in the vocabulary, and so all results with text, depend on it.
    return body, f", while a tiny grey {glyph} passes"


def _background(draw: Draw, size: int) -> tuple[np.ndarray, str]:
    """Gray with a soft vertical gradient, uint8 [R,R,3], and whether it is "dark" or "light"."""
    tone = "dark" if draw(0, 1) < 0.5 else "light"
    level = draw(24, 72) if tone == "dark" else draw(180, 228)
    slope = draw(-24, 24)
    column = level + slope * ((np.arange(size) + 0.5) / size - 0.5)
    return np.broadcast_to(column.astype(np.uint8)[:, None, None], (size, size, 3)), tone


def _render(bodies: Sequence[Body], background: np.ndarray, frames: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The scene filled and as outlines, each uint8 [T,R,R,3]; later bodies hide earlier ones."""
    size = len(background)
    filled = np.tile(background, (frames, 1, 1, 1))
    outline = filled.copy()
    half_line = max(0.75, 0.012 * size)
    for body in bodies:
        distance, top, left = _distances(body, size, stride)
        _blend(filled, 0.5 - distance, body.color, top, left)
        _blend(outline, 0.5 + half_line - np.abs(distance), body.color, top, left)
    return filled, outline


def _distances(body: Body, size: int, stride: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Signed distances in pixels, float32 [T,P,P], of the patch around each frame's body; the patches' top and left."""
    center, radius, angle = body.center[::stride] * size, body.radius[::stride] * size, body.angle[::stride]
    patch = min(size, int(np.ceil(2 * EXTENT * radius.max())) + 2)
    corner = np.clip(np.floor(center - patch / 2 + 0.5), 0, size - patch)
    offset = corner[:, None] + np.arange(patch)[:, None] + 0.5 - center[:, None]  # [T,P,2]
    offset *= (GRID / (2 * EXTENT) / radius)[:, None, None]
    cosine, sine = COSINE[angle % TURN], COSINE[(angle - TURN // 4) % TURN]
    cos_x, sin_x = ((factor[:, None] * offset[:, :, 0]).astype(np.float32)[:, None, :] for factor in (cosine, sine))
    cos_y, sin_y = ((factor[:, None] * offset[:, :, 1]).astype(np.float32)[:, :, None] for factor in (cosine, sine))
    middle = np.float32(GRID / 2)
    column = np.clip((cos_x + (sin_y + middle)).astype(np.int32), 0, GRID - 1)
    row = np.clip((cos_y + middle - sin_x).astype(np.int32), 0, GRID - 1)
    distance = _table(body.glyph).take(row * GRID + column) * radius.astype(np.float32)[:, None, None]
    return distance, corner[:, 1].astype(int).tolist(), corner[:, 0].astype(int).tolist()


def _blend(video: np.ndarray, coverage: np.ndarray, color: Color, top: list[int], left: list[int]) -> None:
    """Composites `color` onto the patches [T,P,P] of `video`, in 128 steps so that int16 holds every product."""
    patch = coverage.shape[1]
    windows = [video[t, y : y + patch, x : x + patch] for t, (y, x) in enumerate(zip(top, left, strict=True))]
    under = np.stack(windows).astype(np.int16)
    weight = (np.clip(coverage, 0, 1) * 128).astype(np.int16)[..., None]
    under += ((np.array(color, np.int16) - under) * weight) >> 7
    for window, composite in zip(windows, under.astype(np.uint8), strict=True):
        window[:] = composite


@functools.cache
def _table(glyph: str) -> np.ndarray:
    """Signed distance to a shape of radius one, float32 [GRID*GRID], negative inside; in multiples of 2**-12."""
    axis = (np.arange(GRID) + 0.5) * (2 * EXTENT / GRID) - EXTENT
    x, y = np.meshgrid(axis, axis)
    if glyph.isdigit():
        distance = _to_line(DIGITS[int(glyph)], x, y) - 0.17
    else:
        # A hole off the center shows the orientation: otherwise a circle would not visibly spin.
        hole = 0.22 - np.sqrt(x * x + (y + 0.42) ** 2)
        distance = np.maximum(_solid(glyph, x, y), hole)
    return (np.round(distance * 2**12) / 2**12).astype(np.float32).ravel()


def _solid(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if shape == "circle":
        return np.sqrt(x * x + y * y) - 0.94
    if shape == "square":
        corners = [(-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76)]
    elif shape == "triangle":
        corners = [(0.0, -1.04), (0.96, 0.62), (-0.96, 0.62)]
    else:
        rounds = [_ellipse(0, 0, scale, scale, 36 * k - 90, 36 * k - 90, 1) for k, scale in enumerate([1.08, 0.54] * 5)]
        corners = [point for points in rounds for point in points]
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    edge = _to_line([*corners, corners[0]], x, y)
    return np.where(inside, -edge, edge)


def _to_line(points: Sequence[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the line through `points`."""
    nearest = np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    return np.sqrt(nearest)


def _ellipse(x: float, y: float, rx: float, ry: float, start: int, stop: int, n: int = 17) -> list[tuple[float, float]]:
    """Points of an arc from `start` to `stop` degrees, clockwise from the right."""
    steps = [round((start + (stop - start) * i / max(n - 1, 1)) * TURN / 360) for i in range(n)]
    return [(x + rx * float(COSINE[k % TURN]), y + ry * float(COSINE[(k - TURN // 4) % TURN])) for k in steps]


# The strokes of the digits, within 0.6 x 0.9 to each side of the origin; a 9 is a 6 upside down.
DIGITS = {
    0: _ellipse(0, 0, 0.5, 0.82, 0, 360, 25),
    1: [(-0.32, -0.5), (0.06, -0.82), (0.06, 0.82)],
    2: [*_ellipse(0, -0.36, 0.46, 0.46, 190, 390), (-0.48, 0.82), (0.5, 0.82)],
    3: [*_ellipse(-0.02, -0.42, 0.42, 0.4, 205, 450), *_ellipse(-0.02, 0.4, 0.48, 0.42, 271, 515)],
    4: [(0.24, 0.82), (0.24, -0.82), (-0.54, 0.32), (0.58, 0.32)],
    5: [(0.44, -0.82), (-0.36, -0.82), (-0.42, -0.08), *_ellipse(-0.02, 0.28, 0.5, 0.52, 222, 505)],
    6: [(0.3, -0.82), (-0.16, -0.36), *_ellipse(0, 0.34, 0.48, 0.48, 195, 555, 25)],
    7: [(-0.5, -0.82), (0.5, -0.82), (-0.12, 0.82)],
    8: [*_ellipse(0, -0.42, 0.38, 0.4, 90, 450, 21), *_ellipse(0, 0.42, 0.46, 0.42, 270, 630, 21)],
}
DIGITS[9] = [(-x, -y) for x, y in DIGITS[6]]
