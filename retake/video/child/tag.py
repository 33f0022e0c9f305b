"""The comment tag of an MP4 that exists already: its packets are copied, nothing is encoded again."""

from __future__ import annotations

from typing import Any

import av

from .channel import Channel
from .encode import FULL, disk_error

_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")


def tag(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Serve one tag request: copy `path` to `part`, with `comment` as its comment tag. Raises MachineError E503 when
    the disk is full."""
    try:
        return _copy(request)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_error(request, error) from None


def _copy(request: dict[str, Any]) -> dict[str, Any]:
    options = {"movflags": "+faststart"}
    with (
        av.open(request["path"], mode="r", metadata_errors="ignore") as source,
        av.open(request["part"], "w", format="mp4", options=options) as target,
    ):
        target.metadata.update({k: v for k, v in source.metadata.items() if k not in _OF_THE_FILE})
        target.metadata["comment"] = request["comment"]
        target.set_chapters(source.chapters())
        # Tracks of data are what MP4 makes of chapters and timecode; they are made anew.
        streams = [stream for stream in source.streams if stream.type in ("video", "audio", "subtitle")]
        copies = {stream.index: target.add_stream_from_template(stream) for stream in streams}
        for stream in streams:
            kept = {k: v for k, v in stream.metadata.items() if k in ("language", "title", "timecode")}
            copies[stream.index].metadata.update(kept)
            copies[stream.index].disposition = stream.disposition
        for packet in source.demux(streams):  # type: ignore[attr-defined]
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return {}
