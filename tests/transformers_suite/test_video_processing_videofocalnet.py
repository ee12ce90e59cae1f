"""The video processor in the tests of transformers' video processors."""

import unittest

from tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from hf_dvflnet import VideoFocalNetVideoProcessor


class VideoFocalNetVideoProcessingTester:
    def __init__(self):
        self.batch_size, self.num_frames, self.num_channels = 5, 8, 3
        # the sizes that the mixin expects
        self.size, self.crop_size = {"shortest_edge": 20}, {"height": 18, "width": 18}

    def prepare_video_processor_dict(self) -> dict:
        return {"size": self.size, "crop_size": self.crop_size, "num_frames": self.num_frames}

    def expected_output_video_shape(self, videos: list) -> tuple:
        return self.num_frames, self.num_channels, self.crop_size["height"], self.crop_size["width"]

    def prepare_video_inputs(self, **kwargs) -> list:
        sizes = {"min_resolution": 30, "max_resolution": 80}
        return prepare_video_inputs(self.batch_size, self.num_frames, self.num_channels, **sizes, **kwargs)


class VideoFocalNetVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = VideoFocalNetVideoProcessor
    input_name = "pixel_values"
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoFocalNetVideoProcessingTester()

    @property
    def video_processor_dict(self) -> dict:
        return self.video_processor_tester.prepare_video_processor_dict()

    def test_call_sample_frames(self):
        """
        Written anew as in SmolVLM, whose `fps` does not replace `num_frames` either: a clip has `num_frames` frames,
        whatever the frame rate, and as published, a shorter video repeats frames where the mixin expects an error.
        """
        videos = self.video_processor_tester.prepare_video_inputs(return_tensors="torch")
        told = {"duration": 2.0, "total_num_frames": 8, "fps": 4}
        processor = self.fast_video_processing_class(**self.video_processor_dict)

        def sampled(inputs, metadata=None, **kwargs) -> int:
            return processor(inputs, return_tensors="pt", video_metadata=metadata, **kwargs)[self.input_name].shape[1]

        for inputs, metadata in [(videos[0], [[told]]), (videos, [[told]] * len(videos))]:
            self.assertEqual(sampled(inputs, num_frames=3, do_sample_frames=False), 8)
            self.assertEqual(sampled(inputs, num_frames=3), 3)
            self.assertEqual(sampled(inputs, metadata, num_frames=3, fps=2), 3)
            self.assertEqual(sampled(inputs, num_frames=10), 10)
            with self.assertRaises(ValueError):  # no frame rate
                sampled(inputs, num_frames=3, fps=2)
