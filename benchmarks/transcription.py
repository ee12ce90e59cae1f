"""
A Video-FocalNet written down from the papers' equations as they stand, the stand-in for the published code in
benchmarks: channels first and last in turn, (batch * height * width, channels, frames) for the dense 1-D convolutions
along time, copies wherever a layout changes. Its weights have the published names. It takes the default options only.
"""

import torch
from torch import nn
from torch.nn import functional as F

from hf_dvflnet import VideoFocalNetConfig


class PatchEmbed(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, size, stride=size)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        x = self.proj(x)  # (batch * frames, channels, height, width)
        height, width = x.shape[-2:]
        return self.norm(x.flatten(2).transpose(1, 2)), height, width  # (batch * frames, height * width, channels)


class Modulation(nn.Module):
    def __init__(self, channels: int, num_frames: int, window: int, levels: int):
        super().__init__()
        self.channels, self.num_frames, self.levels = channels, num_frames, levels
        sizes = [window + 2 * level for level in range(levels)]
        self.f = nn.Linear(channels, 2 * channels + levels + 1)
        self.h = nn.Conv2d(channels, channels, 1)
        self.f_temporal = nn.Linear(channels, channels + levels + 1)
        self.h_temporal = nn.Conv1d(channels, channels, 1)
        self.proj = nn.Linear(channels, channels)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels, bias=False), nn.GELU())
            for k in sizes
        )
        self.focal_layers_temporal = nn.ModuleList(
            nn.Sequential(nn.Conv1d(channels, channels, k, padding=k // 2, bias=False), nn.GELU()) for k in sizes
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # x: (batch * frames, height, width, channels)
        rows, height, width, channels = x.shape
        frames, batch = self.num_frames, rows // self.num_frames
        y = self.f(x).permute(0, 3, 1, 2).contiguous()
        query, context, gates = torch.split(y, (channels, channels, self.levels + 1), 1)
        gathered = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gathered = gathered + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean(2, keepdim=True).mean(3, keepdim=True))
        spatial = self.h(gathered + whole * gates[:, self.levels :])

        z = self.f_temporal(x).view(batch, frames, height, width, -1)
        z = z.permute(0, 2, 3, 4, 1).contiguous().view(batch * height * width, -1, frames)
        context, gates = torch.split(z, (channels, self.levels + 1), 1)
        gathered = 0
        for level, layer in enumerate(self.focal_layers_temporal):
            context = layer(context)
            gathered = gathered + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean(2, keepdim=True))
        temporal = self.h_temporal(gathered + whole * gates[:, self.levels :])
        temporal = temporal.view(batch, height, width, channels, frames).permute(0, 4, 3, 1, 2).contiguous()
        temporal = temporal.view(rows, channels, height, width)

        return self.proj((query * spatial * temporal).permute(0, 2, 3, 1).contiguous())


class Mlp(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, channels: int, num_frames: int, window: int, levels: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.modulation = Modulation(channels, num_frames, window, levels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))

    def forward(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        rows, positions, channels = x.shape
        modulated = self.modulation(self.norm1(x).view(rows, height, width, channels))
        x = x + modulated.view(rows, positions, channels)
        return x + self.mlp(self.norm2(x))


class Stage(nn.Module):
    def __init__(self, config: VideoFocalNetConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        window, levels = config.focal_windows[stage], config.focal_levels[stage]
        self.blocks = nn.ModuleList(
            Block(channels, config.num_frames, window, levels, config.mlp_ratio) for _ in range(config.depths[stage])
        )
        self.downsample = PatchEmbed(channels, 2 * channels, 2) if stage < len(config.depths) - 1 else None

    def forward(self, x: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, int, int]:
        for block in self.blocks:
            x = block(x, height, width)
        if self.downsample is None:
            return x, height, width
        return self.downsample(x.transpose(1, 2).reshape(len(x), -1, height, width))


class Transcription(nn.Module):
    """`pixel_values` (batch, frames, channels, height, width) -> logits (batch, num_labels)."""

    def __init__(self, config: VideoFocalNetConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(config.num_channels, config.embed_dim, config.patch_size)
        self.layers = nn.ModuleList(Stage(config, stage) for stage in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        batch, frames = pixel_values.shape[:2]
        x, height, width = self.patch_embed(pixel_values.flatten(0, 1))
        for layer in self.layers:
            x, height, width = layer(x, height, width)
        return self.head(self.norm(x).mean(1).view(batch, frames, -1).mean(1))
