# a value other than the default for each field of `PreTrainedConfig`
config_common_kwargs = {
    "architectures": ["VideoFocalNetModel"],
    "chunk_size_feed_forward": 5,
    "dtype": "float16",
    "id2label": {0: "wave"},
    "is_encoder_decoder": True,
    "label2id": {"wave": 0},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}
