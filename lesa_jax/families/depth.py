"""Which models may get layers in between: those in which no layer's function depends on its number, or so that entries
of config.json can say the same of the grown model.

Read from the modelling code of transformers, and kept true by a test that grows every type that it has.
"""

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
# Tensors that scale the residual stream itself (doge, gemma4).
RESIDUAL_SCALES = frozenset({"input_residual", "post_attention_residual", "layer_scalar"})
# Of these it is known that old layers compute the same in a deeper model, once config.json has grown.
INDEPENDENT = frozenset(
    """
CHECKED
    """.split()
)
# Words of an entry's name that may speak of layers by their number.
SPEAKING = frozenset(
    "layer layers block blocks interval period pattern every freq frequency idx idxs indices first step stage loop cycle "
    "offset skip depth".split()
)
# Entries with such words that do not, or that growth takes care of.
UNDERSTOOD = frozenset(
    "index_block_size index_local_blocks index_topk_blocks block_size block_auto_adjust_ff_dim block_ffn_dim_multiplier "
    "block_multiple_of block_ff_dim block_norm_eps block_use_swiglu block_use_xavier_init block_mlp_init_scale "
    "block_out_init_scale block_dim time_step_floor time_step_init_scheme time_step_limit time_step_max time_step_min "
    "time_step_rank time_step_scale altup_active_idx summary_first_dropout layer_norm_eps layer_norm_epsilon "
    "layer_norm_elementwise_affine layer_norm_bias layernorm_epsilon rms_layer_norm_eps num_random_blocks "
    "_sliding_window_pattern sliding_window_pattern global_attn_every_n_layers no_rope_layer_interval layer_group_size "
    "prefix_dense_sliding_window_pattern per_layer_config attention_layers attention_types block_types scale_depth "
    "vocab_size_per_layer_input layer_types mlp_layer_types layers_block_type decoder_sparse_step step_kernel "
    "moe_layer_start_index moe_layer_end_index rescale_every activation_sparsity_pattern".split()
)
