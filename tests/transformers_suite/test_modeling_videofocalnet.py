"""The model and its config in the tests of transformers' models."""

import copy
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from tests.test_pipeline_mixin import PipelineTesterMixin
from transformers import pipeline, set_seed
from transformers.models.auto import modeling_auto
from transformers.testing_utils import torch_device
from videos import write_video

from hf_dvflnet import (
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetImageProcessor,
    VideoFocalNetModel,
    VideoFocalNetVideoProcessor,
)


class VideoFocalNetModelTester:
    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.batch_size, self.num_frames, self.num_channels, self.image_size = 5, 4, 3, 32
        self.embed_dim, self.depths, self.num_labels = 8, [1, 1], 10
        # what the mixins look for
        self.is_training, self.num_hidden_layers, self.hidden_size = True, 2, 16
        self.seq_length = self.num_frames * 4 * 4

    def get_config(self) -> VideoFocalNetConfig:
        return VideoFocalNetConfig(
            image_size=self.image_size,
            num_frames=self.num_frames,
            embed_dim=self.embed_dim,
            depths=self.depths,
            focal_levels=[2, 2],
            focal_windows=[3, 3],
            use_layerscale=True,  # parameters that belong to no linear layer, convolution or norm
            layerscale_value=0.5,
            num_labels=self.num_labels,
        )

    def prepare_config_and_inputs(self):
        shape = [self.batch_size, self.num_frames, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), floats_tensor(shape), ids_tensor([self.batch_size], self.num_labels)

    def prepare_config_and_inputs_for_common(self):
        config, pixel_values, _ = self.prepare_config_and_inputs()
        return config, {"pixel_values": pixel_values}

    def create_and_check_model(self, config, pixel_values, labels):
        model = VideoFocalNetModel(config).to(torch_device).eval()
        outputs = model(pixel_values)
        shape = (self.batch_size, self.seq_length, self.hidden_size)
        self.parent.assertEqual(outputs.last_hidden_state.shape, shape)
        self.parent.assertEqual(outputs.pooler_output.shape, (self.batch_size, self.hidden_size))

    def create_and_check_for_video_classification(self, config, pixel_values, labels):
        model = VideoFocalNetForVideoClassification(config).to(torch_device).eval()
        outputs = model(pixel_values, labels=labels)
        self.parent.assertEqual(outputs.logits.shape, (self.batch_size, self.num_labels))
        self.parent.assertEqual(outputs.loss.shape, ())


class VideoFocalNetModelTest(ModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    all_model_classes = (VideoFocalNetModel, VideoFocalNetForVideoClassification)
    pipeline_model_mapping = {"video-classification": VideoFocalNetForVideoClassification}
    # Old models are left out, by the year of the copyright in the file of the config. Ours states none.
    test_can_init_all_missing_weights_before_2023 = True
    # switched off as in FocalNet: there is no attention to return
    has_attentions = False
    # switched off as in FocalNet, VideoMAE and Swin: there are no tokens whose embeddings could be resized
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = VideoFocalNetModelTester(self)
        self.config_tester = ConfigTester(
            self,
            config_class=VideoFocalNetConfig,
            embed_dim=16,
            has_text_modality=False,
            # as in FocalNet, which has no attention heads either; and what tools look for
            common_properties=["image_size", "num_channels", "hidden_sizes", "hidden_size", "num_hidden_layers"],
        )
        # Several tests look up by name what kind a class is. The names of transformers' models are in these lists, to
        # which `AutoModel.register` does not add.
        for names, model_class in [
            (modeling_auto.MODEL_MAPPING_NAMES, VideoFocalNetModel),
            (modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, VideoFocalNetForVideoClassification),
            # for `test_problem_types`, which asks only classifiers of texts and images
            (modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, VideoFocalNetForVideoClassification),
        ]:
            self.enterContext(patch.dict(names, videofocalnet=model_class.__name__))

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model(self):
        self.model_tester.create_and_check_model(*self.model_tester.prepare_config_and_inputs())

    def test_for_video_classification(self):
        self.model_tester.create_and_check_for_video_classification(*self.model_tester.prepare_config_and_inputs())

    def test_model_get_set_embeddings(self):
        """Written anew as in FocalNet, VideoMAE and Swin: patches are not embedded by an `nn.Embedding`."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            embeddings = copy.deepcopy(model.get_input_embeddings())
            model.set_input_embeddings(embeddings)
            self.assertIs(model.get_input_embeddings(), embeddings)
            self.assertIsNone(model.get_output_embeddings())

    def test_hidden_states_output(self):
        """Written anew as in FocalNet and Swin: the stages differ in size, and ours keep frames, height and width."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        batch = (self.model_tester.batch_size, self.model_tester.num_frames)
        for model_class in self.all_model_classes:
            asked_in_config = copy.deepcopy(config)
            asked_in_config.output_hidden_states = True
            for of, asked in [(config, {"output_hidden_states": True}), (asked_in_config, {})]:
                with torch.no_grad():
                    hidden_states = model_class(of).to(torch_device).eval()(**inputs, **asked).hidden_states
                # the stem, the first stage, and the second stage
                shapes = [(*batch, 8, 8, 8), (*batch, 8, 8, 8), (*batch, 4, 4, 16)]
                self.assertEqual([tuple(state.shape) for state in hidden_states], shapes)

    def test_torch_compile_for_training(self):
        """Written anew, as the test has a text for input, and only runs on a GPU: the same for a clip."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.drop_path_rate = 0.0  # random numbers differ between compiled and other code
        model = VideoFocalNetForVideoClassification(config).to(torch_device)
        inputs = self._prepare_for_class(inputs, VideoFocalNetForVideoClassification, return_labels=True)
        model(**inputs).loss.backward()
        expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        # traces forward and backward as by default, but has no C++ compiler translate them, which takes minutes
        torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss.backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4)

    def run_pipeline_test(self, task, repo_name, model_architecture, *args, dtype="float32", **kwargs):
        """Written anew: the mixin takes model and video from the Hub, and knows processors of transformers only."""
        set_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            model_architecture(self.model_tester.get_config()).save_pretrained(folder)
            sizes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
            VideoFocalNetImageProcessor(**sizes).save_pretrained(folder)
            VideoFocalNetVideoProcessor(num_frames=self.model_tester.num_frames, **sizes).save_pretrained(folder)
            video = str(write_video(Path(folder, "video.mp4")))
            classifier = pipeline(task, folder, dtype=dtype, device=torch_device)
            self.assertEqual(str(classifier.model.dtype), f"torch.{dtype}")
            for top in [classifier(video, top_k=2), *classifier((video for _ in range(10)), batch_size=4, top_k=2)]:
                self.assertEqual([set(entry) for entry in top], [{"score", "label"}] * 2)
                self.assertGreaterEqual(top[0]["score"], top[1]["score"])
