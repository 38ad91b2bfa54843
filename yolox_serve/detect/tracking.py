"""Numbers for objects through a video, by ByteTrack of the package `trackers`."""

from dataclasses import replace
from typing import Final

import numpy as np

from yolox_client import ImageResult
from yolox_serve.detect.sources import SourceError

# From here on a detection may begin a track; the detector has left out what is not confident.
BEGINS_TRACK: Final = 0.25
# Name of the field that carries each detection's position through the tracker.
POSITION: Final = "position"


class Tracker:
    """Follows the objects of one video.

    Args:
        frames_per_s: Frames in a second that are looked into.

    Raises:
        SourceError: The package is not installed.
    """

    def __init__(self, frames_per_s: float) -> None:
        try:
            from trackers import ByteTrackTracker  # noqa: PLC0415 - an extra, and slow to import
        except ModuleNotFoundError as error:
            raise SourceError(
                f"--track needs the extra track: pip install 'yolox-serve[track]' ({error})"
            ) from error
        self._tracker = ByteTrackTracker(
            frame_rate=frames_per_s, track_activation_threshold=BEGINS_TRACK
        )

    def follow(self, result: ImageResult) -> ImageResult:
        """The result of the next frame, with a `track_id` for each object that is followed.

        An object gets its number in the second frame that shows it.
        """
        found = result.to_supervision()
        found.data[POSITION] = np.arange(len(found))
        tracked = self._tracker.update(found)
        if not len(tracked):
            return result
        positions, tracks = np.asarray(tracked.data[POSITION]), np.asarray(tracked.tracker_id)
        pairs = zip(positions.tolist(), tracks.tolist(), strict=True)
        ids = {position: track for position, track in pairs if track >= 0}
        detections = (
            replace(each, track_id=ids.get(position))
            for position, each in enumerate(result.detections)
        )
        return replace(result, detections=tuple(detections))
