"""Tiny models from scratch, with absolute or with rotary positions."""

CONTEXT = 96  # tokens that the models read at once


def build(kind: str, vocabulary: int, context: int = CONTEXT):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Olmo2Config, Olmo2ForCausalLM

    torch.manual_seed(0)
    if kind == "absolute":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_positions=context, n_embd=32, n_layer=2, n_head=2, eos_token_id=0)
        )
    else:
        model = Olmo2ForCausalLM(
            Olmo2Config(
                vocab_size=vocabulary,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=context,
                eos_token_id=0,
                pad_token_id=None,
                bos_token_id=None,
            )
        )
    with torch.no_grad():  # far from uniform, as a trained model is
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return model.eval()
