"""Which models may get layers in between: those in which no layer's function depends on its number, or so that entries
of config.json can say the same of the grown model.

Read from the modelling code of transformers, and kept true by a test that grows every type that it has; OpenELM's from
apple's.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A layer's function depends on its number, or on the count of layers, and no entry can say it otherwise.
BY_DEPTH = {
    "diffllama": "its attention subtracts more in higher layers (lambda_init), by a layer's number",
    "minimax": "its linear attention forgets at rates (slopes) that follow from a layer's number and the layer count",
    "gpt_neox_japanese": "its attention has a bias in the last layer only, and drops it where layers follow",
    "zamba": "layers at certain numbers share the weights of one transformer block",
    "zamba2": "layers at certain numbers share the weights of one transformer block",
    "dory": "it runs ranges of layers in loops, by their numbers",
    "inkling2_text": "layers at certain numbers begin a block of the residual stream",
    "inkling2_loop_text": "it runs a range of layers in loops, and layers at certain numbers begin a block",
    "qwen4_exp": "layers at certain numbers have an embedding of their own",
    "qwen4_exp_text": "layers at certain numbers have an embedding of their own",
    "hrm_text": "it runs its stacks of layers in cycles",
}
# A silenced layer is no identity: something in it acts on the residual stream besides its output projections.
NEVER_SILENT = {
    "longcat_flash": "its experts without weights hand on what they are given",
}
# Tensors that act on the residual stream itself (doge, gemma4, zaya).
RESIDUAL_SCALES = frozenset(
    {"input_residual", "post_attention_residual", "layer_scalar", "residual_scale", "residual_bias"}
)
# Of these it is known that old layers compute the same in a deeper model, once config.json has grown.
INDEPENDENT = _words(
    """
    afmoe apertus apertus1p5_text arcee aria_text axk1 axk2 bailing_hybrid bamba bitnet bloom codegen cohere
    cohere2 cohere2_moe cwm deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5 ernie4_5_moe exaone exaone4
    exaone_moe falcon falcon_h1 flex_olmo flint fuyu gemma gemma2 gemma3 gemma3_text glm glm4 glm4_moe
    glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite
    granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling_text internlm3 iquestcoder jais2 kimi_linear kolibri1 laguna
    lara_mini lfm2 lfm2_moe lfm3 llama llama4 llama4_text mellum mimo_v2_flash minicpm3 minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral moss_transcribe_diarize mpt nanochat nemotron olmo
    olmo2 olmo3 olmo_hybrid olmoe openelm opt persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_5
    qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma sarvam_mla sarvam_moe
    seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma xglm youtu
    """
)
# Words of an entry's name that may speak of layers by their number.
SPEAKING = _words(
    """
    layer layers block blocks interval period pattern every freq frequency idx idxs indices first step stage loop cycle
    offset skip depth
    """
)
# Entries with such words that do not, or that growth takes care of.
UNDERSTOOD = _words(
    """
    _sliding_window_pattern activation_sparsity_pattern altup_active_idx attention_layers attention_types
    block_auto_adjust_ff_dim block_dim block_ff_dim block_ffn_dim_multiplier block_mlp_init_scale
    block_multiple_of block_norm_eps block_out_init_scale block_size block_types block_use_swiglu
    block_use_xavier_init decoder_sparse_step depth_multiplier global_attn_every_n_layers index_block_size
    index_local_blocks index_topk_blocks layer_group_size layer_norm_bias layer_norm_elementwise_affine
    layer_norm_eps layer_norm_epsilon layer_scale_init_value layer_types layerdrop layers_block_type
    mlp_layer_types no_rope_layer_interval normalization_layer_name num_random_blocks per_layer_config
    prefix_dense_sliding_window_pattern rescale_every rope_freq_constant scale_depth share_input_output_layers
    sliding_window_pattern step_kernel
    summary_first_dropout time_step_floor time_step_init_scheme time_step_limit time_step_max time_step_min
    time_step_rank time_step_scale vocab_size_per_layer_input
    """
)
