"""The image processor in the tests of transformers' image processors."""

import unittest

from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin, prepare_video_inputs

from hf_dvflnet import VideoFocalNetImageProcessor


class VideoFocalNetImageProcessingTester(ImageProcessingTester):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.num_frames, self.size, self.crop_size = 10, {"shortest_edge": 20}, {"height": 18, "width": 18}

    def _get_image_processing_classes(self):
        # the mixin would look among transformers' own
        return {"torchvision": VideoFocalNetImageProcessor}

    def prepare_image_inputs(self, **kwargs) -> list:
        # our processor takes a list of images for a clip, as VideoMAE's does, and its frames have one size
        return super().prepare_image_inputs(**{**kwargs, "equal_resolution": True})

    def prepare_video_inputs(self, **kwargs) -> list:
        sizes = {"min_resolution": self.min_resolution, "max_resolution": 80}
        return prepare_video_inputs(self.batch_size, self.num_frames, self.num_channels, **sizes, **kwargs)


class VideoFocalNetImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = VideoFocalNetImageProcessingTester
    test_cast_dtype = True

    def check_call(self, num_channels: int, videos: list, **kwargs):
        tester = self.image_processor_tester
        shape = (tester.num_frames, num_channels, tester.crop_size["height"], tester.crop_size["width"])
        for image_processing_class in self.image_processing_classes.values():
            processor = image_processing_class(**self.image_processor_dict)
            one = processor(videos[0], return_tensors="pt", **kwargs).pixel_values
            self.assertEqual(tuple(one.shape), (1, *shape))
            batch = processor(videos, return_tensors="pt", **kwargs).pixel_values
            self.assertEqual(tuple(batch.shape), (tester.batch_size, *shape))

    # Written anew as in VideoMAE: a batch of clips has one more dimension than one of images.

    def test_call_pil(self):
        self.check_call(3, self.image_processor_tester.prepare_video_inputs())

    def test_call_numpy(self):
        self.check_call(3, self.image_processor_tester.prepare_video_inputs(numpify=True))

    def test_call_pytorch(self):
        self.check_call(3, self.image_processor_tester.prepare_video_inputs(torchify=True))

    def test_call_numpy_4_channels(self):
        self.image_processor_tester.num_channels = 4
        self.check_call(
            4,
            self.image_processor_tester.prepare_video_inputs(numpify=True),
            do_convert_rgb=False,
            input_data_format="channels_first",
            image_mean=[0.0] * 4,
            image_std=[1.0] * 4,
        )
