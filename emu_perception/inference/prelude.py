"""First part of a deployment file: from image and camera to the network's pixels, as ONNX text."""

from __future__ import annotations

import math

from emu_perception.inference.deployment import CAMERA, PIXELS
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.predictor import STRIDE

MAP_SHAPE, FOCAL = "map_shape", "focal"
"""Further values inside the graph: one whose shape is that of the maps; `(2,)` focal length /
canonical focal length, and its relative standard deviation."""


def prelude(spec: ModelSpec) -> str:
    """The graph from a file's inputs to those of `DeploymentGraph`, in ONNX's textual form.

    It computes what `Predictor` does: the network's size, the image and the camera, or the assumed
    one, at that size, focal length / canonical focal length and its relative deviation.
    """
    camera = spec.camera
    assumed, std, canonical = (
        (camera.assumed_focal_ratio, camera.assumed_focal_std, camera.canonical_focal_length)
        if camera
        else (1.0, 0.0, 1.0)
    )
    side = "area_side" if camera and camera.assumed_focal_of == "area" else "width"
    focal = "Concat <axis = 0> (focal_ratio, focal_std)"
    if camera is None:
        focal = "Constant <value = float[2] {1.0, 0.0}> ()"
    return f"""
prelude (uint8[height, width, 3] image, float[4] camera, int64[2] output_size)
    => (float[1, 3, h, w] {PIXELS}, float[1, 4] {CAMERA},
        float[rows, columns] {MAP_SHAPE}, float[2] {FOCAL})
{{
    axis = Constant <value = int64[1] {{0}}> ()
    image_size = Shape <start = 0, end = 2> (image)
    image_exact = Cast <to = 11> (image_size)
    count = ReduceProd <keepdims = 0> (image_size)
    count_exact = Cast <to = 11> (count)
    area = Constant <value = double {{{float(math.prod(spec.input_size))!r}}}> ()
    stride = Constant <value = double {{{float(STRIDE)!r}}}> ()
    one = Constant <value = double {{1.0}}> ()
    ratio = Div (area, count_exact)
    scale = Sqrt (ratio)
    scaled = Mul (image_exact, scale)
    cells_exact = Div (scaled, stride)
    cells_rounded = Round (cells_exact)
    cells = Max (cells_rounded, one)
    network_exact = Mul (cells, stride)
    network_size = Cast <to = 7> (network_exact)
    planes = Transpose <perm = [2, 0, 1]> (image)
    planes_float = Cast <to = 1> (planes)
    batch = Unsqueeze (planes_float, axis)
    batch_size = Constant <value = int64[2] {{1, 3}}> ()
    batch_shape = Concat <axis = 0> (batch_size, network_size)
    {PIXELS} = Resize <antialias = 1, mode = "linear",
        coordinate_transformation_mode = "half_pixel"> (batch, , , batch_shape)

    zero = Constant <value = float {{0.0}}> ()
    first = Constant <value = int64[1] {{0}}> ()
    second = Constant <value = int64[1] {{1}}> ()
    camera_fx = Gather (camera, first)
    known = Greater (camera_fx, zero)
    image_float = Cast <to = 1> (image_size)
    width = Gather (image_float, second)
    count_float = Cast <to = 1> (count)
    area_root = Sqrt (count_float)
    area_side = Unsqueeze (area_root, axis)
    centre_index = Constant <value = int64[2] {{1, 0}}> ()
    centre_sides = Gather (image_float, centre_index)
    sides = Concat <axis = 0> ({side}, {side}, centre_sides)
    halves = Constant <value = float[4] {{0.0, 0.0, 0.5, 0.5}}> ()
    proportions = Constant <value = float[4] {{{assumed!r}, {assumed!r}, 0.5, 0.5}}> ()
    assumed_edges = Mul (sides, proportions)
    assumed = Sub (assumed_edges, halves)
    seen = Where (known, camera, assumed)
    zoom_exact = Div (network_exact, image_exact)
    zoom = Cast <to = 1> (zoom_exact)
    zoom_index = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
    zooms = Gather (zoom, zoom_index)
    seen_edges = Add (seen, halves)
    zoomed_edges = Mul (seen_edges, zooms)
    zoomed = Sub (zoomed_edges, halves)
    {CAMERA} = Unsqueeze (zoomed, axis)

    network_fx = Gather (zoomed, first)
    network_fy = Gather (zoomed, second)
    focal_product = Mul (network_fx, network_fy)
    focal_length = Sqrt (focal_product)
    canonical = Constant <value = float {{{canonical!r}}}> ()
    focal_ratio = Div (focal_length, canonical)
    deviation = Constant <value = float {{{std!r}}}> ()
    focal_std = Where (known, zero, deviation)
    {FOCAL} = {focal}

    none = Constant <value = int64 {{0}}> ()
    given = Greater (output_size, none)
    map_size = Where (given, output_size, image_size)
    {MAP_SHAPE} = ConstantOfShape <value = float[1] {{0.0}}> (map_size)
}}
"""
