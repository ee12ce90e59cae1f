"""Classes named in words: an image network that compares frames with text becomes a video classifier untrained."""

import json

import pytest
import torch
from commands import run
from small_trainings import RandomClips, arguments, labelled, new_model
from transformers import (
    AutoModelForVideoClassification,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from hf_dvflnet import DistillationConfig, DistillationTrainer, FrameModelForVideoClassification


WORDS = ["<pad>", "<end>", "a", "photo", "video", "of", "juggling", "jumping", "high", "."]
TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
LABELS = ["juggling", "jumping high"]
TEMPLATES = ["a photo of {} .", "a video of {} ."]


def write_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", model_max_length=16
    ).save_pretrained(folder)


@pytest.fixture(params=[(CLIPModel, CLIPConfig), (SiglipModel, SiglipConfig)], ids=["CLIP", "SigLIP"])
def network(request, tmp_path):
    kind, config = request.param
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 2}
    network = kind(
        config(
            text_config=TOWER | text | {"pad_token_id": 0}, vision_config=TOWER | {"image_size": 32, "patch_size": 16}
        )
    ).eval()
    network.save_pretrained(tmp_path / "network")
    write_tokenizer(tmp_path / "network")
    return network, tmp_path / "network"


def test_logits_are_the_mean_over_frames_of_the_networks_own(network):
    network, folder = network
    sentences = [template.format(label) for label in LABELS for template in TEMPLATES[:1]]
    model = FrameModelForVideoClassification.from_text(folder, LABELS, TEMPLATES[:1]).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    padding = "max_length" if isinstance(network, SiglipModel) else True
    inputs = tokenizer(sentences, padding=padding, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    clips = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        per_frame = network(pixel_values=clips.flatten(0, 1), **inputs).logits_per_image
        found = model(pixel_values=clips).logits
    torch.testing.assert_close(found, per_frame.unflatten(0, (2, 4)).mean(1), atol=1e-5, rtol=1e-5)


def test_several_templates_stand_for_a_class_by_the_mean_of_their_directions(network):
    _, folder = network
    both, *each = (
        FrameModelForVideoClassification.from_text(folder, LABELS, templates).classifier.weight
        for templates in (TEMPLATES, TEMPLATES[:1], TEMPLATES[1:])
    )
    mean = torch.nn.functional.normalize(each[0] + each[1], dim=-1) * each[0].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(both, mean)


def test_it_is_saved_without_the_text_tower_and_loaded_by_the_auto_class(network, tmp_path):
    network, folder = network
    model = FrameModelForVideoClassification.from_text(folder, LABELS).eval()
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "saved").eval()
    clips = torch.randn(1, 4, 3, 32, 32)
    assert torch.equal(loaded(pixel_values=clips).logits, model(pixel_values=clips).logits)
    assert loaded.config.id2label == dict(enumerate(LABELS))
    sigmoid = isinstance(network, SiglipModel)
    assert loaded.config.problem_type == ("multi_label_classification" if sigmoid else None)
    assert not any("text" in name for name in loaded.state_dict())


def test_the_command_writes_a_model_that_runs_without_the_package(network, dvflnet, tmp_path):
    _, folder = network
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    words = ("--labels", tmp_path / "names.txt", "--templates", *TEMPLATES)
    code, printed, errors = dvflnet("create", folder, tmp_path / "made", *words)
    assert code == 0 and "2 classes, not trained" in printed, errors
    code = f"""
        import json, sys, torch
        sys.modules["hf_dvflnet"] = None
        from transformers import AutoModelForVideoClassification, AutoVideoProcessor
        folder = {str(tmp_path / "made")!r}
        AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True)
        print(json.dumps(model(torch.ones(1, 4, 3, 32, 32)).logits.tolist()))
    """
    found = json.loads(run(code, cwd=tmp_path, HF_MODULES_CACHE=str(tmp_path / "modules")).splitlines()[-1])
    expected = FrameModelForVideoClassification.from_text(folder, LABELS, TEMPLATES).eval()
    torch.testing.assert_close(torch.tensor(found), expected(torch.ones(1, 4, 3, 32, 32)).logits)


def test_words_teach_by_forward_kl_without_a_label(network, tiny_config, tmp_path):
    teacher = FrameModelForVideoClassification.from_text(network[1], LABELS, num_frames=4)
    teacher.config.problem_type = "single_label_classification"  # SigLIP's scores are those of separate labels
    clips = [{"pixel_values": clip} for clip in RandomClips(8).clips]
    args = DistillationConfig(**arguments(tmp_path / "run"), alpha=1.0, temperature=1.0)
    student = new_model(labelled(tiny_config, LABELS), seed=0)
    before = student.classifier.weight.clone()
    DistillationTrainer(student, args, teacher_model=teacher, train_dataset=clips).train()
    assert not torch.equal(student.classifier.weight, before)


def test_what_cannot_compare_with_text_is_refused(network, tmp_path):
    _, folder = network
    ViTModel(ViTConfig(**TOWER, image_size=32)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a ViTModel, which does not compare images with text"):
        FrameModelForVideoClassification.from_text(tmp_path / "vit", LABELS)
    with pytest.raises(ValueError, match=r"the template 'a photo' has no \{\} for the name"):
        FrameModelForVideoClassification.from_text(folder, LABELS, ["a photo"])
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no tokenizer for its text tower"):
        FrameModelForVideoClassification.from_text(folder, LABELS)
