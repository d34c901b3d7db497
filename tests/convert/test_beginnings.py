"""What training begins with is what it was taken from: CLIP on single frames, GPT-2 with shut gates, BERT's layers."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    CLIPConfig,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from tests.models.lf_vila.small_lf_vila import TEXT, small_config, small_processor, write_vocabulary
from videollm.convert import lavila, lf_vila
from videollm.errors import ConversionError
from videollm.models.lavila import LavilaDualEncoder, LavilaNarrator, LavilaProcessor
from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaProcessor

EYE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
       "patch_size": 8}  # fmt: skip
WORDS = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beginnings")
    torch.manual_seed(0)
    spread = {"initializer_range": 0.2}
    config = CLIPConfig(vision_config={**EYE, **spread}, text_config={**WORDS, **spread}, initializer_factor=4.0)
    CLIPModel(config).eval().save_pretrained(folder / "clip")
    bert = {"dim": 24, "hidden_dim": 48, "n_layers": 2, "n_heads": 2, "vocab_size": 60}
    DistilBertModel(DistilBertConfig(**bert)).save_pretrained(folder / "distilbert")
    write_vocabulary(folder / "distilbert")
    GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=2)).save_pretrained(folder / "gpt2")
    first = small_config(text_config={**TEXT, "num_hidden_layers": 2})
    LfVilaForPreTraining(first).save_pretrained(folder / "first")
    small_processor(folder).save_pretrained(folder / "first")
    BertForPreTraining(BertConfig(**TEXT)).save_pretrained(folder / "bert")
    return folder


def test_the_dual_encoder_sees_single_frames_as_clip(root, tmp_path):
    out = lavila.convert([root / "clip"], tmp_path / "dual", say=lambda line: None)
    model = LavilaDualEncoder.from_pretrained(out).eval()
    clip = CLIPModel.from_pretrained(root / "clip").eval()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = clip.vision_model(pixels).pooler_output
    # The norms within published blocks have another eps than CLIP's.
    torch.testing.assert_close(model.vision_model(pixels[:, None]).pooler_output, theirs, atol=2e-4, rtol=1e-3)
    ids = LavilaProcessor.from_pretrained(out).texts(["#C C opens a door"])["input_ids"]
    assert torch.equal(model.text_model(ids).last_hidden_state, clip.text_model(ids).last_hidden_state)
    assert model.config.text_config.vocab_size == 49408 and model.visual_projection.out_features == 256


def test_a_dual_encoder_may_read_with_distilbert(root, tmp_path):
    out = lavila.convert([root / "distilbert", root / "clip"], tmp_path / "dual", say=lambda line: None)
    model = LavilaDualEncoder.from_pretrained(out)
    bert = DistilBertModel.from_pretrained(root / "distilbert").state_dict()
    assert all(torch.equal(value, bert[name]) for name, value in model.text_model.state_dict().items())


def test_the_narrator_speaks_as_gpt2_until_it_learns_to_look(root, tmp_path):
    dual = lavila.convert([root / "clip"], tmp_path / "dual", say=lambda line: None)
    out = lavila.convert([root / "gpt2", dual], tmp_path / "narrator", say=lambda line: None)
    model = LavilaNarrator.from_pretrained(out).eval()
    ids = torch.tensor([[50256, 5, 7, 9]])
    theirs = GPT2LMHeadModel.from_pretrained(root / "gpt2").eval()(ids).logits
    pixels = torch.randn(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(input_ids=ids, pixel_values=pixels).logits, theirs)
    eye = LavilaDualEncoder.from_pretrained(dual).vision_model.state_dict()
    assert all(torch.equal(value, eye[name]) for name, value in model.vision_model.state_dict().items())
    assert LavilaProcessor.from_pretrained(out).text_kind == "gpt2"


def test_the_second_stage_begins_with_the_first_and_the_rest_of_bert(root, tmp_path):
    out = lf_vila.convert([root / "first", root / "bert"], tmp_path / "second", say=lambda line: None)
    model = LfVilaForPreTraining.from_pretrained(out).eval()
    first = LfVilaForPreTraining.from_pretrained(root / "first").state_dict()
    bert = BertForPreTraining.from_pretrained(root / "bert").eval()
    for name, value in model.text_encoder.bert.encoder.layer.state_dict().items():
        early = name.split(".")[0] in "01"
        theirs = bert.bert.encoder.layer.state_dict()
        wanted = first[f"text_encoder.bert.encoder.layer.{name}"] if early else theirs[name]
        assert torch.equal(value, wanted), name
    states = torch.randn(2, 3, TEXT["hidden_size"], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.mlm_decoder(model.mlm_transform(states)), bert.cls.predictions(states))
    assert torch.equal(model.text_encoder.bert.pooler.dense.weight, bert.bert.pooler.dense.weight)
    assert torch.equal(model.state_dict()["video_encoder.norm.weight"], first["video_encoder.norm.weight"])
    assert LfVilaProcessor.from_pretrained(out).max_sentence_tokens == 12


def test_what_does_not_fit_is_one_line_and_leaves_nothing(root, tmp_path):
    config = BertConfig(**{**TEXT, "num_hidden_layers": 2})
    BertForPreTraining(config).save_pretrained(tmp_path / "short")
    with pytest.raises(ConversionError, match="has 2 layers, which the first stage has already"):
        lf_vila.convert([root / "first", tmp_path / "short"], tmp_path / "second")
    BertForPreTraining(BertConfig(**{**TEXT, "hidden_size": 32})).save_pretrained(tmp_path / "narrow")
    with pytest.raises(ConversionError, match=r"has encoder\.layer\.2.* of 32, the model has 64"):
        lf_vila.convert([root / "first", tmp_path / "narrow"], tmp_path / "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow", "short"]
