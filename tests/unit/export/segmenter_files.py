"""State dicts in the layouts of segmenters' projects, and what each computes, in float64.

Names, shapes and formulas are written down here a second time, from the papers and the projects'
lists of tensors, so that a mistake in ours does not hide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = OrderedDict[str, Tensor]


class Layout:
    """Builds a state dict name by name, in half precision where that keeps files small."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.state: State = OrderedDict()

    def conv(self, name: str, out: int, inputs: int, kernel: int, *, bias: bool = False) -> None:
        fan_in = inputs * kernel * kernel
        self.state[f"{name}.weight"] = torch.randn(out, inputs, kernel, kernel) * fan_in**-0.5
        if bias:
            self.state[f"{name}.bias"] = torch.randn(out) * 0.1

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 0.8 + 0.4 * torch.rand(width)
        self.state[f"{name}.bias"] = torch.randn(width) * 0.1
        self.state[f"{name}.running_mean"] = torch.randn(width) * 0.1
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(width)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


class Formula:
    """The layers, from a state dict in float64."""

    def __init__(self, state: State) -> None:
        self.state = {n: t.double() for n, t in state.items()}

    def conv(
        self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> Tensor:
        weight = self.state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        bias = self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            self.state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _bilinear(x: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=corners)


# milesial's U-Net


def unet(*, classes: int, width: int, bilinear: bool, bias: bool, channels: int = 3) -> State:
    layout = Layout()

    def double(name: str, inputs: int, hidden: int, out: int) -> None:
        for index, (a, b) in ((0, (inputs, hidden)), (3, (hidden, out))):
            layout.conv(f"{name}.double_conv.{index}", b, a, 3, bias=bias)
            layout.norm(f"{name}.double_conv.{index + 1}", b)

    w, shrink = width, 2 if bilinear else 1
    double("inc", channels, w, w)
    deep = [w, 2 * w, 4 * w, 8 * w, 16 * w // shrink]
    for i in range(1, 5):
        double(f"down{i}.maxpool_conv.1", deep[i - 1], deep[i], deep[i])
    for i in range(1, 5):
        inputs = 16 * w >> (i - 1)
        out = w if i == 4 else (inputs // 2) // shrink
        if not bilinear:
            layout.state[f"up{i}.up.weight"] = torch.randn(inputs, inputs // 2, 2, 2) / inputs**0.5
            layout.state[f"up{i}.up.bias"] = torch.randn(inputs // 2) * 0.1
        double(f"up{i}.conv", inputs, inputs // 2 if bilinear else out, out)
    layout.conv("outc.conv", classes, w, 1, bias=True)
    return layout.state


def unet_logits(state: State, x: Tensor) -> Tensor:
    """x [N, 3, H, W] in [0, 1]."""
    net = Formula(state)

    def double(x: Tensor, name: str) -> Tensor:
        for index in (0, 3):
            x = net.conv(x, f"{name}.double_conv.{index}", padding=1)
            x = net.norm(x, f"{name}.double_conv.{index + 1}").clamp(min=0)
        return x

    skips = [double(x, "inc")]
    for i in range(1, 5):
        skips.append(double(F.max_pool2d(skips[-1], 2), f"down{i}.maxpool_conv.1"))
    x = skips.pop()
    for i in range(1, 5):
        skip = skips.pop()
        weight = net.state.get(f"up{i}.up.weight")
        if weight is None:
            x = _bilinear(x, skip.shape[2:], corners=True)
        else:
            x = F.conv_transpose2d(x, weight, net.state[f"up{i}.up.bias"], stride=2)
        x = double(torch.cat([skip, x], dim=1), f"up{i}.conv")
    return net.conv(x, "outc.conv")


# ResNets


def _basic_resnet(layout: Layout, at: str) -> None:
    """ResNet-18: `at`conv1, bn1, layer1 to layer4."""
    layout.conv(f"{at}conv1", 64, 3, 7)
    layout.norm(f"{at}bn1", 64)
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"{at}layer{stage}.{block}"
            for index, entering in ((1, inputs), (2, width)):
                layout.conv(f"{name}.conv{index}", width, entering, 3)
                layout.norm(f"{name}.bn{index}", width)
            if inputs != width:
                layout.conv(f"{name}.downsample.0", width, inputs, 1)
                layout.norm(f"{name}.downsample.1", width)
            inputs = width


def bottleneck_resnet(layout: Layout, at: str, blocks: tuple[int, int, int, int]) -> None:
    """ResNet-50 (3, 4, 6, 3) or -101 (3, 4, 23, 3)."""
    layout.conv(f"{at}conv1", 64, 3, 7)
    layout.norm(f"{at}bn1", 64)
    inputs = 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
        for block in range(count):
            name = f"{at}layer{stage}.{block}"
            shapes = ((width, inputs, 1), (width, width, 3), (4 * width, width, 1))
            for index, (out, entering, kernel) in enumerate(shapes, start=1):
                layout.conv(f"{name}.conv{index}", out, entering, kernel)
                layout.norm(f"{name}.bn{index}", out)
            if block == 0:
                layout.conv(f"{name}.downsample.0", 4 * width, inputs, 1)
                layout.norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width


def _basic_stages(net: Formula, at: str, x: Tensor) -> list[Tensor]:
    x = net.norm(net.conv(x, f"{at}conv1", 2, 3), f"{at}bn1").clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"{at}layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = net.norm(net.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1").clamp(min=0)
            y = net.norm(net.conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in net.state:
                x = net.norm(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (x + y).clamp(min=0)
        stages.append(x)
    return stages


# BiSeNet


def bisenet(classes: int = 19) -> State:
    layout = Layout()

    def block(name: str, out: int, inputs: int, kernel: int) -> None:
        layout.conv(f"{name}.conv", out, inputs, kernel)
        layout.norm(f"{name}.bn", out)

    _basic_resnet(layout, "cp.resnet.")
    for name, inputs in (("arm16", 256), ("arm32", 512)):
        block(f"cp.{name}.conv", 128, inputs, 3)
        layout.conv(f"cp.{name}.conv_atten", 128, 128, 1)
        layout.norm(f"cp.{name}.bn_atten", 128)
    block("cp.conv_head32", 128, 128, 3)
    block("cp.conv_head16", 128, 128, 3)
    block("cp.conv_avg", 128, 512, 1)
    block("ffm.convblk", 256, 256, 1)
    layout.conv("ffm.conv1", 64, 256, 1)
    layout.conv("ffm.conv2", 256, 64, 1)
    for name, inputs, hidden in (
        ("conv_out", 256, 256),
        ("conv_out16", 128, 64),
        ("conv_out32", 128, 64),
    ):
        block(f"{name}.conv", hidden, inputs, 3)
        layout.conv(f"{name}.conv_out", classes, hidden, 1)
    return layout.state


def bisenet_logits(state: State, x: Tensor) -> Tensor:
    """x [N, 3, H, W], normalised."""
    net = Formula(state)

    def block(x: Tensor, name: str) -> Tensor:
        padding = net.state[f"{name}.conv.weight"].shape[2] // 2
        return net.norm(net.conv(x, f"{name}.conv", 1, padding), f"{name}.bn").clamp(min=0)

    def refined(x: Tensor, name: str) -> Tensor:
        x = block(x, f"{name}.conv")
        weight = net.norm(net.conv(_mean(x), f"{name}.conv_atten"), f"{name}.bn_atten")
        return x * weight.sigmoid()

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    _, at8, at16, at32 = _basic_stages(net, "cp.resnet.", x)
    deepest = refined(at32, "cp.arm32") + block(_mean(at32), "cp.conv_avg")
    deeper = refined(at16, "cp.arm16") + block(doubled(deepest), "cp.conv_head32")
    context = block(doubled(deeper), "cp.conv_head16")
    fused = block(torch.cat([at8, context], dim=1), "ffm.convblk")
    weight = net.conv(net.conv(_mean(fused), "ffm.conv1").clamp(min=0), "ffm.conv2").sigmoid()
    logits = net.conv(block(fused * (1 + weight), "conv_out.conv"), "conv_out.conv_out")
    return _bilinear(logits, x.shape[2:], corners=True)


# DeepLab


def aspp(layout: Layout, at: str, inputs: int, *, separable: bool = False) -> None:
    layout.conv(f"{at}convs.0.0", 256, inputs, 1)
    layout.norm(f"{at}convs.0.1", 256)
    for index in (1, 2, 3):
        _convolution(layout, f"{at}convs.{index}.0", 256, inputs, separable=separable)
        layout.norm(f"{at}convs.{index}.1", 256)
    layout.conv(f"{at}convs.4.1", 256, inputs, 1)
    layout.norm(f"{at}convs.4.2", 256)
    layout.conv(f"{at}project.0", 256, 1280, 1)
    layout.norm(f"{at}project.1", 256)


def _convolution(layout: Layout, name: str, out: int, inputs: int, *, separable: bool) -> None:
    if not separable:
        return layout.conv(name, out, inputs, 3)
    layout.conv(f"{name}.body.0", inputs, 1, 3)
    layout.conv(f"{name}.body.1", out, inputs, 1)
    return None


def torchvision_deeplab(
    classes: int = 21, blocks: tuple[int, int, int, int] = (3, 4, 6, 3), *, aux: bool = True
) -> State:
    layout = Layout()
    bottleneck_resnet(layout, "backbone.", blocks)
    aspp(layout, "classifier.0.", 2048)
    layout.conv("classifier.1", 256, 256, 3)
    layout.norm("classifier.2", 256)
    layout.conv("classifier.4", classes, 256, 1, bias=True)
    if aux:
        layout.conv("aux_classifier.0", 256, 1024, 3)
        layout.norm("aux_classifier.1", 256)
        layout.conv("aux_classifier.4", classes, 256, 1, bias=True)
    return layout.state


MOBILE_BLOCKS = [
    # inputs, out, stride, expansion
    (32, 16, 1, 1),
    (16, 24, 2, 6), (24, 24, 1, 6),
    (24, 32, 2, 6), (32, 32, 1, 6), (32, 32, 1, 6),
    (32, 64, 2, 6), (64, 64, 1, 6), (64, 64, 1, 6), (64, 64, 1, 6),
    (64, 96, 1, 6), (96, 96, 1, 6), (96, 96, 1, 6),
    (96, 160, 2, 6), (160, 160, 1, 6), (160, 160, 1, 6),
    (160, 320, 1, 6),
]  # fmt: skip


def _mobile_name(index: int) -> str:
    return f"backbone.{'low' if index < 4 else 'high'}_level_features.{index}"


def vainf_mobilenet(classes: int = 21, *, plus: bool = True, separable: bool = False) -> State:
    layout = Layout()
    layout.conv("backbone.low_level_features.0.0", 32, 3, 3)
    layout.norm("backbone.low_level_features.0.1", 32)
    for index, (inputs, out, _, expansion) in enumerate(MOBILE_BLOCKS, start=1):
        name, hidden, step = f"{_mobile_name(index)}.conv", inputs * expansion, 0
        if expansion > 1:
            layout.conv(f"{name}.0.0", hidden, inputs, 1)
            layout.norm(f"{name}.0.1", hidden)
            step = 1
        layout.conv(f"{name}.{step}.0", hidden, 1, 3)
        layout.norm(f"{name}.{step}.1", hidden)
        layout.conv(f"{name}.{step + 1}", out, hidden, 1)
        layout.norm(f"{name}.{step + 2}", out)
    vainf_head(layout, 24, 320, classes, plus=plus, separable=separable)
    return layout.state


def vainf_head(
    layout: Layout, low: int, last: int, classes: int, *, plus: bool, separable: bool
) -> None:
    if plus:
        layout.conv("classifier.project.0", 48, low, 1)
        layout.norm("classifier.project.1", 48)
        aspp(layout, "classifier.aspp.", last, separable=separable)
        _convolution(layout, "classifier.classifier.0", 256, 304, separable=separable)
        layout.norm("classifier.classifier.1", 256)
        layout.conv("classifier.classifier.3", classes, 256, 1, bias=True)
        return
    aspp(layout, "classifier.classifier.0.", last, separable=separable)
    _convolution(layout, "classifier.classifier.1", 256, 256, separable=separable)
    layout.norm("classifier.classifier.2", 256)
    layout.conv("classifier.classifier.4", classes, 256, 1, bias=True)


def vainf_mobilenet_logits(state: State, x: Tensor, output_stride: int) -> Tensor:
    """x [N, 3, H, W], normalised; DeepLabv3+."""
    net = Formula(state)
    size = x.shape[2:]
    # Dilation of the depthwise convolutions by block, as stated for output strides 8 and 16.
    dilations = {16: [1] * 14 + [2] * 3, 8: [1] * 7 + [2] * 6 + [2] + [4] * 3}
    shrinks = {16: (1, 3, 6), 8: (1, 3)}  # blocks, from 0, that halve the size
    x = net.norm(net.conv(x, f"{_mobile_name(0)}.0", 2), f"{_mobile_name(0)}.1").clamp(0, 6)
    low = x
    for index, (inputs, out, _, expansion) in enumerate(MOBILE_BLOCKS):
        name, dilation = f"{_mobile_name(index + 1)}.conv", dilations[output_stride][index]
        stride = 2 if index in shrinks[output_stride] else 1
        y, step = F.pad(x, [dilation] * 4), 0
        if expansion > 1:
            y, step = net.norm(net.conv(y, f"{name}.0.0"), f"{name}.0.1").clamp(0, 6), 1
        y = net.conv(y, f"{name}.{step}.0", stride, 0, dilation)
        y = net.norm(y, f"{name}.{step}.1").clamp(0, 6)
        y = net.norm(net.conv(y, f"{name}.{step + 1}"), f"{name}.{step + 2}")
        x = x + y if stride == 1 and inputs == out else y
        if index == 2:
            low = x
    return _bilinear(_plus_head(net, low, x, output_stride), size, corners=False)


def _plus_head(net: Formula, low: Tensor, last: Tensor, output_stride: int) -> Tensor:
    def any_conv(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        if f"{name}.body.0.weight" not in net.state:
            return net.conv(x, name, 1, dilation, dilation)
        return net.conv(net.conv(x, f"{name}.body.0", 1, dilation, dilation), f"{name}.body.1")

    at = "classifier.aspp."
    branches = [net.norm(net.conv(last, f"{at}convs.0.0"), f"{at}convs.0.1")]
    rates = (12, 24, 36) if output_stride == 8 else (6, 12, 18)
    for index, rate in enumerate(rates, start=1):
        y = any_conv(last, f"{at}convs.{index}.0", rate)
        branches.append(net.norm(y, f"{at}convs.{index}.1"))
    pooled = net.norm(net.conv(_mean(last), f"{at}convs.4.1"), f"{at}convs.4.2")
    branches.append(pooled.expand_as(branches[0]))
    y = torch.cat(branches, dim=1).clamp(min=0)
    y = net.norm(net.conv(y, f"{at}project.0"), f"{at}project.1").clamp(min=0)
    low = net.norm(net.conv(low, "classifier.project.0"), "classifier.project.1").clamp(min=0)
    y = torch.cat([low, _bilinear(y, low.shape[2:], corners=False)], dim=1)
    y = net.norm(any_conv(y, "classifier.classifier.0"), "classifier.classifier.1").clamp(min=0)
    return net.conv(y, "classifier.classifier.3")
