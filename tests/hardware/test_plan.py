"""Placement and choice: the 8 GB rule, the ladders, the reasons, and what never happens."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrun.errors import OutOfMemory
from localrun.gguf import Header, ModelInfo, open_header
from localrun.hardware.plan import (
    Budget,
    Candidate,
    GpuBudget,
    Placement,
    Wish,
    choose,
    place,
    plain_quantization,
)
from tests.fakes.phantoms import ENCODER_PHANTOMS, ODD_PHANTOMS, PHANTOMS, make_phantom

GIB, MIB = 1 << 30, 1 << 20
QUANTIZATIONS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q4_0", "Q3_K_M", "Q2_K")


@cache
def header(model: str, quantization: str = "Q4_K_M") -> Header:
    with TemporaryDirectory() as folder:
        return open_header(
            make_phantom(Path(folder) / "phantom.gguf", model, quantization=quantization)
        )


def info(model: str, quantization: str = "Q4_K_M") -> ModelInfo:
    return header(model, quantization).info


def budget(*gpus: float, ram: float = 16.0, is_unified: bool = False) -> Budget:
    """Usable GiB; each GPU has one more that is free but left alone."""
    return Budget(
        int(ram * GIB),
        tuple(
            GpuBudget(f"CUDA{i}", i, int((size + 1) * GIB), int(size * GIB))
            for i, size in enumerate(gpus)
        ),
        is_unified,
        n_threads=6,
    )


def candidates(model: str, *, only: tuple[str, ...] = QUANTIZATIONS) -> list[Candidate]:
    return [Candidate(q, header(model, q).file_bytes, info(model, q), f"{model}-{q}") for q in only]


def chosen(
    model: str, room: Budget, only: tuple[str, ...] = QUANTIZATIONS
) -> tuple[str, Placement]:
    choice = choose(candidates(model, only=only), room, Wish())
    assert choice.chosen is not None
    assert choice.chosen.placement is not None
    return choice.chosen.candidate.quantization, choice.chosen.placement


# ── place ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["llama2-7b", "llama3.1-8b", "qwen3-8b", "qwen2.5-7b"])
def test_with_8_gb_a_7_to_8b_model_is_wholly_on_the_gpu(model: str) -> None:
    placement = place(info(model), budget(6.7), Wish())
    assert placement.is_on_gpu
    assert placement.where == "CUDA0"
    assert placement.n_gpu_layers == info(model).n_layer + 1
    assert (placement.type_k, placement.main_gpu) == ("f16", None)


def test_with_4_gb_part_of_an_8b_model_is_offloaded() -> None:
    placement = place(info("llama3.1-8b"), budget(3.2), Wish())
    assert 10 <= placement.n_gpu_layers < 33
    assert placement.need_bytes["CUDA0"] <= 3.2 * GIB
    assert placement.where.endswith("of 33 layers on CUDA0, the rest on the CPU")


def test_without_a_gpu_all_is_on_the_cpu_with_its_smaller_window() -> None:
    placement = place(info("llama3.1-8b"), budget(), Wish())
    assert (placement.n_gpu_layers, placement.n_ctx, placement.n_threads) == (0, 8192, 6)
    assert placement.need_bytes.keys() == {"cpu"}
    short = place(info("llama3.1-8b"), budget(ram=5.2), Wish())
    assert short.n_ctx == 4096


@pytest.mark.parametrize(
    ("size", "n_ctx", "type_k"),
    [(22, 32768, "f16"), (7, 16384, "f16"), (5.8, 8192, "f16"), (5.2, 8192, "q8_0")],
)
def test_the_window_shrinks_before_the_kv_cache_is_quantized(
    size: float, n_ctx: int, type_k: str
) -> None:
    placement = place(info("llama3.1-8b"), budget(size), Wish())
    assert (placement.is_on_gpu, placement.n_ctx, placement.type_k) == (True, n_ctx, type_k)
    assert placement.flash_attention is (True if type_k == "q8_0" else None)


def test_a_window_is_never_longer_than_the_training() -> None:
    placement = place(info("llama2-7b"), budget(22), Wish(num_ctx=100_000))
    assert placement.n_ctx == 4096
    assert placement.notes == ("num_ctx 100000 is more than the 4096 tokens of the training",)
    assert place(info("llama2-7b"), budget(22), Wish()).n_ctx == 4096


def test_an_explicit_window_is_kept_to_the_letter() -> None:
    placement = place(info("llama3.1-8b"), budget(22), Wish(num_ctx=5000))
    assert (placement.n_ctx, placement.n_cells % 256) == (5000, 0)
    assert placement.n_cells >= 5000
    assert placement.notes == ()


def test_a_window_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(OutOfMemory, match=r"needs .* GiB on .* GiB are free") as caught:
        place(info("llama3.1-8b"), budget(ram=8), Wish(num_ctx=131072))
    assert caught.value.hint == "options.num_ctx=8192 would fit"
    assert caught.value.needed_bytes > caught.value.free_bytes == 8 * GIB
    assert caught.value.device == "cpu"


def test_a_model_that_cannot_fit_asks_for_a_smaller_one() -> None:
    with pytest.raises(OutOfMemory) as caught:
        place(info("llama3.1-70b"), budget(6.7), Wish())
    assert "smaller" in caught.value.hint


def test_explicit_layers_are_taken_or_refused() -> None:
    placement = place(info("llama3.1-8b"), budget(22), Wish(num_gpu=10))
    assert placement.n_gpu_layers == 10
    assert place(info("llama3.1-8b"), budget(22), Wish(num_gpu=999)).n_gpu_layers == 33
    assert place(info("llama3.1-8b"), budget(22), Wish(num_gpu=0)).need_bytes.keys() == {"cpu"}
    with pytest.raises(OutOfMemory, match="on CUDA0") as caught:
        place(info("llama3.1-8b"), budget(3), Wish(num_gpu=33))
    assert "num_gpu" in caught.value.hint


def test_wishes_for_a_gpu_that_is_not_there_are_noted() -> None:
    placement = place(info("llama3.2-1b"), budget(), Wish(num_gpu=99))
    assert placement.n_gpu_layers == 0
    assert "num_gpu has no effect" in placement.notes[0]
    placement = place(info("llama3.2-1b"), budget(8), Wish(main_gpu=3))
    assert "main_gpu has no effect" in placement.notes[0]


def test_a_model_goes_to_one_gpu_if_one_holds_it_and_over_all_if_not() -> None:
    one = place(info("llama3.1-8b"), budget(5, 11), Wish())
    assert (one.where, one.main_gpu) == ("CUDA1", 1)
    both = place(info("llama2-13b"), budget(6, 6, ram=64), Wish())
    assert (both.where, both.main_gpu, both.is_on_gpu) == ("CUDA0 and CUDA1", None, True)
    told = place(info("llama3.1-8b"), budget(11, 11), Wish(main_gpu=0))
    assert (told.where, told.main_gpu) == ("CUDA0", 0)


def test_slots_share_a_pool_that_stays_cheap() -> None:
    placement = place(info("llama3.2-1b"), budget(), Wish())
    assert (placement.n_slots, placement.n_seq_max) == (8, 24)
    per_cell = 16 * 2 * 8 * 64 * 2
    assert (placement.n_cells - placement.n_ctx) * per_cell <= 256 << 20
    asked = place(info("llama3.2-1b"), budget(), Wish(num_parallel=3))
    assert (asked.n_slots, asked.n_cells) == (3, 3 * asked.n_ctx)


def test_many_slots_are_bounded_by_what_a_context_can_hold() -> None:
    placement = place(info("llama3.2-1b"), budget(), Wish(num_parallel=400, num_batch=32))
    assert placement.n_slots == placement.n_seq_max == 256
    assert placement.n_batch >= placement.n_seq_max
    assert any("256 slots instead of 400" in note for note in placement.notes)
    assert any("num_batch is 256" in note for note in placement.notes)


def test_recurrent_state_is_not_kept_for_idle_sequences() -> None:
    placement = place(info("mamba-130m"), budget(), Wish())
    assert placement.n_seq_max == placement.n_slots + 1


def test_an_encoder_takes_its_whole_input_in_one_graph() -> None:
    placement = place(info("bge-large"), budget(), Wish())
    assert (placement.n_ctx, placement.n_batch, placement.n_ubatch) == (512, 512, 512)
    assert (placement.n_slots, placement.n_seq_max) == (8, 32)
    assert placement.cell_bytes == {"cpu": 0}
    asked = place(info("bge-m3"), budget(), Wish(num_ctx=300))
    assert (asked.n_ctx, asked.n_batch, asked.n_ubatch) == (300, 300, 300)


@pytest.mark.parametrize(("cpu_gib", "n_ctx"), [(64, 8192), (12, 4096), (6, 2048), (2, 512)])
def test_an_encoders_window_is_the_trained_one_where_its_outputs_leave_room(
    cpu_gib: int, n_ctx: int
) -> None:
    placement = place(info("bge-m3"), replace(budget(), cpu_bytes=cpu_gib * GIB), Wish())
    assert placement.n_ctx == placement.n_ubatch == n_ctx
    logits = 4 * 250002 * n_ctx
    assert logits < placement.compute_bytes["cpu"] < logits + 512 * MIB


def test_a_causal_embedder_reads_in_pieces() -> None:
    facts = replace(info("qwen3-8b"), is_embedder=True, pooling_type=3)
    placement = place(facts, budget(), Wish())
    assert (placement.n_ctx, placement.n_ubatch) == (8192, 512)
    assert placement.compute_bytes["cpu"] < 256 * MIB


def test_with_no_room_to_spare_there_is_one_slot() -> None:
    facts = info("llama3.1-8b")
    wish = Wish(num_ctx=4096, kv_cache_type="f16", num_batch=512)
    one = place(facts, budget(), replace(wish, num_parallel=1)).need_bytes["cpu"]
    tight = replace(budget(), cpu_bytes=one)
    assert place(facts, tight, wish).n_slots == 1


def test_a_kv_type_is_kept_where_it_can_be() -> None:
    asked = Wish(kv_cache_type="q4_0")
    assert place(info("llama3.1-8b"), budget(22), asked).type_v == "q4_0"
    plain = place(info("llama3.1-8b"), budget(22), replace(asked, flash_attention=False))
    assert (plain.type_k, plain.type_v) == ("q4_0", "f16")
    assert "needs flash attention" in plain.notes[0]
    odd = replace(info("llama3.1-8b"), head_dim_k=80)
    assert place(odd, budget(22), asked).type_k == "f16"


def test_wishes_pass_through() -> None:
    wish = Wish(num_thread=3, num_batch=256, use_mmap=False, flash_attention=True)
    placement = place(info("llama3.2-1b"), budget(), wish)
    assert (placement.n_threads, placement.n_batch, placement.n_ubatch) == (3, 256, 256)
    assert (placement.use_mmap, placement.flash_attention) == (False, True)


def test_without_flash_attention_the_scores_are_counted() -> None:
    wish = Wish(num_ctx=32768)
    usual = place(info("llama3.1-8b"), budget(ram=64), wish)
    without = place(info("llama3.1-8b"), budget(ram=64), replace(wish, flash_attention=False))
    assert without.need_bytes["cpu"] > usual.need_bytes["cpu"] + (1 << 30)


def test_the_parts_of_a_placement_are_those_of_its_devices() -> None:
    facts = info("llama3.1-8b")
    placement = place(facts, budget(3.2), Wish())
    assert sum(placement.weights_bytes.values()) == facts.weights_bytes + (224 << 20)
    assert sum(placement.cell_bytes.values()) == 32 * 8 * 128 * 2 * 2
    assert placement.compute_bytes["CUDA0"] > 0


def test_unified_memory_is_counted_once() -> None:
    room = budget(11, ram=12, is_unified=True)
    placement = place(info("llama3.1-8b"), room, Wish())
    assert placement.is_on_gpu
    assert sum(placement.need_bytes.values()) <= room.cpu_bytes
    with pytest.raises(OutOfMemory):
        place(info("llama2-13b"), budget(11, ram=7, is_unified=True), Wish())


WISHES = st.builds(
    Wish,
    num_ctx=st.none() | st.integers(4, 200_000),
    num_gpu=st.sampled_from([-1, -1, -1, 0, 5, 99]),
    num_batch=st.none() | st.integers(1, 4096),
    num_parallel=st.sampled_from([0, 0, 1, 4, 300]),
    kv_cache_type=st.sampled_from(["", "", "q8_0", "f32"]),
    flash_attention=st.sampled_from([None, True, False]),
    main_gpu=st.sampled_from([None, None, 0, 1]),
)
BUDGETS = st.builds(
    lambda gpus, ram: budget(*gpus, ram=ram),
    st.lists(st.floats(0, 80), max_size=3),
    st.floats(0, 128),
)
MODELS = st.sampled_from([*PHANTOMS, *ODD_PHANTOMS])


def place_or_fail(facts: ModelInfo, room: Budget, wish: Wish) -> Placement | OutOfMemory:
    try:
        return place(facts, room, wish)
    except OutOfMemory as error:
        return error


@settings(max_examples=100, deadline=1000)
@given(model=MODELS, room=BUDGETS, wish=WISHES)
def test_a_placement_never_takes_more_than_is_free(model: str, room: Budget, wish: Wish) -> None:
    facts = info(model)
    placement = place_or_fail(facts, room, wish)
    if isinstance(placement, OutOfMemory):
        assert placement.needed_bytes > placement.free_bytes
        return
    assert all(n <= room.free_bytes[name] for name, n in placement.need_bytes.items())
    for name, n_bytes in placement.need_bytes.items():
        pool = placement.cell_bytes[name] * placement.n_cells
        assert n_bytes == placement.weights_bytes[name] + pool + placement.compute_bytes[name]
    assert 0 <= placement.n_gpu_layers <= placement.n_layers
    least = 512 if model in ENCODER_PHANTOMS else 4096
    assert placement.n_cells >= placement.n_ctx >= min(wish.num_ctx or least, facts.n_ctx_train)
    assert placement.n_cells % 256 == 0
    assert 1 <= placement.n_slots <= placement.n_seq_max <= min(256, placement.n_batch)
    assert placement.n_ubatch <= placement.n_batch


@settings(max_examples=60, deadline=1000)
@given(model=MODELS, room=BUDGETS, more_ram=st.floats(0, 64), more_vram=st.floats(0, 40))
def test_more_memory_never_makes_a_placement_worse(
    model: str, room: Budget, more_ram: float, more_vram: float
) -> None:
    richer = replace(
        room,
        cpu_bytes=room.cpu_bytes + int(more_ram * GIB),
        gpus=tuple(
            replace(
                gpu,
                usable_bytes=gpu.usable_bytes + int(more_vram * GIB),
                free_bytes=gpu.free_bytes + int(more_vram * GIB),
            )
            for gpu in room.gpus[:1]
        ),
    )
    room = replace(room, gpus=room.gpus[:1])
    before = place_or_fail(info(model), room, Wish())
    if isinstance(before, OutOfMemory):
        return
    after = place(info(model), richer, Wish())
    assert after.is_on_gpu >= before.is_on_gpu
    if after.is_on_gpu == before.is_on_gpu:
        assert after.n_ctx >= before.n_ctx


# ── choose ────────────────────────────────────────────────────────────────────────────────────


def test_8_gb_takes_q4_k_m_wholly_on_the_gpu_and_says_why_nothing_else() -> None:
    choice = choose(candidates("llama3.1-8b"), budget(6.7), Wish())
    reasons = {row.candidate.quantization: row.reason for row in choice.rows}
    assert choice.chosen is not None
    assert choice.chosen.candidate.quantization == "Q4_K_M"
    assert reasons["Q4_K_M"] == "the best that fits wholly on CUDA0"
    assert "not quantized" in reasons["F16"] or "needs" in reasons["F16"]
    assert "fits only in part" in reasons["Q8_0"]
    assert "finer" in reasons["Q5_K_M"]
    assert reasons["Q4_0"] == "Q4_K_S is better at this size"
    assert reasons["Q3_K_M"] == "Q4_K_M is better and fits"
    assert "answers suffer" in reasons["Q2_K"]
    assert choice.advice == ""


@pytest.mark.parametrize(
    ("model", "gpus", "ram", "expected"),
    [
        ("llama3.1-8b", (22,), 64, "Q6_K"),  # twice the room
        ("llama3.1-8b", (44,), 64, "Q8_0"),
        ("llama3.1-8b", (5.2,), 16, "Q4_K_M"),  # 6 GB
        ("llama3.1-8b", (3.2,), 16, "Q4_K_M"),  # 4 GB, in part
        ("llama3.1-8b", (4.2,), 16, "IQ4_XS"),  # a little less bits, and wholly on the GPU
        ("llama3.1-8b", (2.5,), 2, "Q3_K_M"),  # neither GPU nor RAM hold four bits
        ("llama3.2-1b", (6.7,), 16, "Q8_0"),  # a small model loses most by few bits
        ("llama3.1-8b", (), 64, "Q4_K_M"),  # a CPU is bound by bytes, not by room
        ("llama3.2-1b", (), 16, "Q8_0"),
        ("mixtral-8x7b", (6.7,), 12, "Q2_K"),  # better than nothing
    ],
)
def test_the_choice_follows_the_memory(
    model: str, gpus: tuple[float, ...], ram: float, expected: str
) -> None:
    assert chosen(model, budget(*gpus, ram=ram))[0] == expected


def test_few_bits_come_with_advice() -> None:
    choice = choose(candidates("mixtral-8x7b"), budget(6.7, ram=12), Wish())
    assert "a smaller model at Q4_K_M would be better" in choice.advice


def test_dominated_formats_are_taken_only_when_they_are_alone() -> None:
    assert chosen("llama3.1-8b", budget(6.7), ("Q4_0", "IQ4_XS"))[0] == "IQ4_XS"
    assert chosen("llama3.1-8b", budget(6.7), ("Q4_0", "F16"))[0] == "Q4_0"


def test_native_mxfp4_is_taken_before_other_four_bits_of_the_cpu() -> None:
    native = Candidate("MXFP4", 12 * GIB, info("qwen3-30b-a3b"))
    other = Candidate("IQ4_XS", 12 * GIB, info("qwen3-30b-a3b"))
    choice = choose([other, native], budget(22), Wish())
    assert choice.chosen is not None
    assert choice.chosen.candidate is native


def test_nothing_that_fits_leaves_numbers_and_advice() -> None:
    choice = choose(candidates("llama3.1-70b"), budget(3.2, ram=4), Wish())
    assert choice.chosen is None
    assert all("GiB" in row.reason and not row.fits for row in choice.rows)
    assert choice.advice == "none fits; take a smaller model"


def test_candidates_without_a_header_are_judged_by_size() -> None:
    known = info("llama3.1-8b")
    sizes = [Candidate("Q4_K_M", known.weights_bytes, known), Candidate("Q8_0", 8 * GIB)]
    choice = choose(sizes, budget(6.7), Wish())
    assert [row.is_chosen for row in choice.rows] == [True, False]
    assert choice.rows[1].placement is not None  # scaled from the header that was read
    blind = choose([Candidate("Q4_K_M", 4 * GIB), Candidate("Q8_0", 80 * GIB)], budget(6.7), Wish())
    assert [row.fits for row in blind.rows] == [True, False]
    assert "needs about 100.0 GiB" in blind.rows[1].reason


def test_formats_that_nobody_knows_are_told_apart_by_size() -> None:
    known = info("llama3.1-8b")
    offers = [Candidate(q, n * GIB, known) for q, n in (("XQ9_A", 4), ("XQ9_B", 5))]
    choice = choose(offers, budget(6.7), Wish())
    assert choice.chosen is not None
    assert choice.chosen.candidate is offers[0]
    assert "finer" in choice.rows[1].reason


def test_embedding_models_stay_fine() -> None:
    facts = replace(info("llama3.2-1b"), is_embedder=True)
    offers = [Candidate(q, n * GIB // 10, facts) for q, n in (("Q4_K_M", 7), ("F16", 25))]
    choice = choose(offers, budget(6.7), Wish())
    assert choice.chosen is not None
    assert choice.chosen.candidate.quantization == "F16"


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("UD-Q4_K_XL", "Q4_K_M"),
        ("Q4_K_L", "Q4_K_M"),
        ("Q3_K_L", "Q3_K_L"),
        ("q4_k", "Q4_K_M"),
        ("Q6_K_L", "Q6_K"),
        ("Q8_K_XL", "Q8_0"),
        ("UD-Q2_K_XL", "Q2_K"),
        ("IQ4_XS", "IQ4_XS"),
        ("MXFP4_MOE", "MXFP4"),
        ("FP16", "F16"),
    ],
)
def test_tags_stand_for_formats(tag: str, kind: str) -> None:
    assert plain_quantization(tag) == kind


@settings(max_examples=60, deadline=2000)
@given(
    model=st.sampled_from(["llama3.1-8b", "llama3.2-1b", "mixtral-8x7b", "gemma3-4b"]),
    room=BUDGETS,
    only=st.sets(st.sampled_from(QUANTIZATIONS), min_size=1).map(sorted),
)
def test_what_is_chosen_fits_and_something_is_chosen_if_anything_fits(
    model: str, room: Budget, only: list[str]
) -> None:
    choice = choose(candidates(model, only=tuple(only)), room, Wish())
    assert [row.candidate.quantization for row in choice.rows] == only
    assert all(row.reason for row in choice.rows)
    assert (choice.chosen is not None) is any(row.fits for row in choice.rows)
    if choice.chosen is not None:
        assert choice.chosen.fits
        assert choice.chosen in choice.rows
        needs = choice.chosen.placement.need_bytes if choice.chosen.placement else {}
        assert all(n <= room.free_bytes[name] for name, n in needs.items())
