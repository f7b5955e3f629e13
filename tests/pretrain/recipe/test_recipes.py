"""Every shipped recipe loads, its network exists, and its header states claim, cost, command and the source of its values."""

import pytest
import timm
import yaml

from encoders.runtime import optim
from encoders.runtime.errors import InputError
from pretrain.methods import METHODS
from pretrain.recipe import config
from pretrain.recipe.recipes import RECIPES, find_recipe, read_title


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_its_header_states_claim_cost_and_command(name, tmp_path):
    assert find_recipe(name) == RECIPES[name]
    recipe = config.load_recipe(name, ["data.store=x.h5"])
    assert timm.is_model(recipe.arch)
    header = [line for line in RECIPES[name].read_text().splitlines() if line.startswith("#")]
    for word in ("Claim", "Cost", "Command", "Values"):
        assert any(line.startswith(f"# {word} ") for line in header), word
    assert any(f"pretrain run {name} " in line for line in header)
    assert read_title(RECIPES[name]) in RECIPES[name].read_text().partition("\n")[0]
    assert read_title(RECIPES[name])
    # the resolved recipe holds every setting and reads back equal
    config.write_recipe(tmp_path / "config.yaml", recipe)
    assert config.read_recipe(tmp_path / "config.yaml") == recipe
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert set(written) == set(config.Recipe.model_fields)
    assert set(METHODS[recipe.method["name"]].Config.model_fields) < set(written["method"])


@pytest.mark.parametrize(
    ("name", "key", "want"),
    [
        ("cxr_moco", lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.batch, r.epochs), ("sgd", 0.03, 1e-4, 256, 200)),
        ("cxr_moco", lambda r: tuple(r.method[k] for k in ("queue", "momentum", "temperature", "dim")), (65536, 0.999, 0.2, 128)),
        ("cxr_mae", lambda r: (r.optim.kind, r.optim.lr, r.optim.betas, r.optim.weight_decay), ("adamw", 1.5e-4, (0.9, 0.95), 0.05)),
        ("cxr_mae", lambda r: (r.batch, r.epochs, r.warmup_epochs, r.method["mask_ratio"]), (2048, 800, 40, 0.9)),
        ("cxr_simclr", lambda r: (r.optim.kind, r.optim.weight_decay, r.warmup_epochs), ("lars", 1e-4, 10)),
        ("cxr_simclr", lambda r: tuple(r.method[k] for k in ("dim", "layers", "temperature")), (128, 3, 0.1)),
        (
            "cxr_mocov3",
            lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.epochs, r.warmup_epochs),
            ("adamw", 1.5e-4, 0.1, 300, 40),
        ),
        ("cxr_mocov3", lambda r: tuple(r.method[k] for k in ("dim", "hidden", "momentum", "temperature")), (256, 4096, 0.99, 0.2)),
        ("cxr_byol", lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.epochs, r.warmup_epochs), ("lars", 0.3, 1e-6, 300, 10)),
        ("cxr_byol", lambda r: tuple(r.method[k] for k in ("dim", "hidden", "momentum")), (256, 4096, 0.99)),
        ("cxr_simsiam", lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.batch, r.epochs), ("sgd", 0.05, 1e-4, 512, 100)),
        ("cxr_simsiam", lambda r: (r.warmup_epochs, r.method["dim"], r.method["bottleneck"]), (0, 2048, 512)),
        ("cxr_barlowtwins", lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.optim.lr_end), ("lars", 0.2, 1e-6, 0.001)),
        (
            "cxr_barlowtwins",
            lambda r: (r.method["dim"], r.method["redundancy"], round(0.2 * r.method["vector_lr"], 12)),
            (8192, 0.0051, 0.0048),
        ),
        (
            "cxr_vicreg",
            lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.batch, r.optim.lr_end),
            ("lars", 0.4, 1e-6, 512, 0.001),
        ),
        ("cxr_vicreg", lambda r: tuple(r.method[k] for k in ("dim", "invariance", "variance", "covariance")), (8192, 25, 25, 1)),
        ("cxr_dino", lambda r: (r.optim.kind, r.optim.lr, r.optim.weight_decay, r.optim.weight_decay_end), ("adamw", 5e-4, 0.04, 0.4)),
        ("cxr_dino", lambda r: round(optim.peak_lr(r.optim, r.batch) * r.optim.lr_end, 12), 1e-6),
        (
            "cxr_dino",
            lambda r: (r.clip, r.drop_path, r.batch, r.epochs, r.warmup_epochs, r.method["freeze"]),
            (3.0, 0.1, 512, 100, 10, 0.01),
        ),
        ("cxr_dino", lambda r: tuple(r.method[k] for k in ("prototypes", "momentum", "n_local", "fixed_norm")), (65536, 0.996, 8, False)),
        (
            "cxr_dinov2",
            lambda r: (optim.peak_lr(r.optim, 1024), round(optim.peak_lr(r.optim, r.batch) * r.optim.lr_end, 12), r.optim.betas),
            (4e-3, 1e-6, (0.9, 0.999)),
        ),
        (
            "cxr_dinov2",
            lambda r: (r.optim.weight_decay, r.optim.weight_decay_end, r.layer_decay, r.clip, r.drop_path, r.epochs, r.warmup_epochs),
            (0.04, 0.4, 0.9, 3.0, 0.3, 100, 10),
        ),
        (
            "cxr_dinov2",
            lambda r: tuple(r.method[k] for k in ("momentum", "warmup_temperature", "teacher_temperature", "temperature_warmup", "freeze")),
            (0.992, 0.04, 0.07, 0.3, 0.01),
        ),
        (
            "cxr_dinov2",
            lambda r: [r.method[k] for k in ("koleo", "mask_probability", "mask_ratio", "patch_embed_lr", "separate_heads", "balance")],
            [0.1, 0.5, [0.1, 0.5], 0.2, True, "sinkhorn"],
        ),
        (
            "cxr_dinov2",
            lambda r: tuple(r.method[k] for k in ("n_local", "global_crop", "local_crop", "hidden", "bottleneck")),
            (8, [0.32, 1.0], [0.05, 0.32], 2048, 256),
        ),
        (
            "cxr_lejepa",
            lambda r: (optim.peak_lr(r.optim, r.batch), r.optim.lr_end, r.optim.weight_decay, r.warmup_epochs),
            (5e-4, 1e-3, 5e-4, 1),
        ),
        ("cxr_lejepa", lambda r: tuple(r.method[k] for k in ("weight", "slices", "knots", "t_max", "n_local")), (0.05, 1024, 17, 3.0, 6)),
        ("cxr_simclr", lambda r: round(optim.peak_lr(r.optim, r.batch) / r.batch**0.5, 12), 0.075),
        (
            "cxr_simmim",
            lambda r: (optim.peak_lr(r.optim, r.batch) * 512 / r.batch, r.optim.schedule, r.optim.lr_end, r.optim.weight_decay, r.clip),
            (1e-4, "step", 0.1, 0.05, 5.0),
        ),
        ("cxr_simmim", lambda r: (r.batch, r.epochs, r.warmup_epochs, r.drop_path, r.augment["crop"]), (2048, 800, 10, 0.1, [0.67, 1.0])),
        ("cxr_simmim", lambda r: (r.arch, r.method["mask_size"], r.method["mask_ratio"]), ("vit_base_patch16_224", 32, 0.6)),
        (
            "cxr_ijepa",
            lambda r: (optim.peak_lr(r.optim, r.batch), r.optim.lr_end, r.optim.weight_decay, r.optim.weight_decay_end, r.optim.betas),
            (1e-3, 1e-3, 0.04, 0.4, (0.9, 0.999)),
        ),
        ("cxr_ijepa", lambda r: (r.batch, r.epochs, r.warmup_epochs, r.augment["crop"], r.augment["flip"]), (2048, 300, 40, [0.3, 1.0], 0)),
        ("cxr_ijepa", lambda r: tuple(r.method[k] for k in ("momentum", "targets", "min_keep", "predictor_width")), (0.996, 4, 10, 384)),
        (
            "cxr_ijepa",
            lambda r: tuple(r.method[k] for k in ("target_scale", "target_aspect", "context_scale")),
            ([0.15, 0.2], [0.75, 1.5], [0.85, 1.0]),
        ),
    ],
)
def test_full_size_recipes_hold_the_published_values(name, key, want):
    assert key(config.load_recipe(name)) == want


def test_every_method_has_a_full_and_a_tiny_radiograph_recipe():
    assert {f"cxr_{method}{size}" for method in METHODS for size in ("", "_tiny")} <= set(RECIPES)


def test_the_last_override_wins_and_steps_replace_epochs():
    recipe = config.load_recipe("cxr_moco", ["steps=100", "optim.lr=1e-2", "optim.lr=2e-2", "init=null", "arch=resnet18"])
    assert (recipe.steps, recipe.epochs, recipe.optim.lr, recipe.init) == (100, None, 0.02, None)


def test_an_empty_group_clears_what_the_recipe_sets():
    assert config.load_recipe("cxr_dino").model_args == {"dynamic_img_size": True}
    assert config.load_recipe("cxr_dino", ["model_args={}"]).model_args == {}
    assert config.load_recipe("cxr_dino", ["model_args={}", "model_args.depth=2"]).model_args == {"depth": 2}


def test_another_method_replaces_the_settings_of_the_method():
    recipe = config.load_recipe("cxr_moco_tiny", ["method.name=mae", "method.mask_ratio=0.6"])
    assert recipe.method == {"name": "mae", **METHODS["mae"].Config(mask_ratio=0.6).model_dump(mode="json")}


def test_single_settings_override_a_preset():
    recipe = config.load_recipe("cxr_moco_tiny", ["augment.preset=moco", "augment.flip=0"])
    assert (recipe.augment["flip"], recipe.augment["crop"], recipe.augment["hue"]) == (0.0, [0.2, 1.0], 0.1)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("cxr_mco", [], "no recipe called 'cxr_mco'; did you mean cxr_moco"),
        ("nowhere/x.yaml", [], "no recipe file nowhere/x.yaml"),
        ("cxr_moco", ["optim.lrr=1"], "optim.lrr: unknown key; did you mean lr"),
        ("cxr_moco", ["method.temprature=1"], r": method\.temprature: unknown key; did you mean temperature\?"),
        ("cxr_moco", ["method.temperature=0"], r": method\.temperature: .*greater than 0 \(given: 0\)"),
        ("cxr_moco", ["method=moco"], "method is a group of settings; write method.name=moco"),
        ("cxr_moco", ["method.name=mocco"], "no method called 'mocco'; did you mean moco?"),
        ("cxr_moco", ["method.name=1.0e+308"], r"method\.name must be a text, one of `pretrain methods` \(given: 1e\+308\)"),
        ("cxr_moco", ["method.name=null"], r"method\.name must be a text, .*given: None"),
        ("cxr_moco", ["method.name=" + "x" * 5000], r"^no method called 'x{197}\.\.\.'; known: .{9,500}$"),
        ("cxr_moco", ["augment.preset=" + "x" * 5000], r"^no augmentation preset called 'x{197}\.\.\.'; known: .{9,500}$"),
        ("cxr_moco", ["method=3"], "method is a group of settings; write method.name=3"),
        ("cxr_moco", ["method=name"], "method is a group of settings; write method.name=name"),
        ("cxr_moco", ["augment=3"], "augment is a group of settings; write augment.preset=3"),
        ("cxr_moco", ["augment.preset=cxrr"], "no augmentation preset called 'cxrr'; did you mean cxr"),
        ("cxr_moco", ["augment.flipp=1"], r": augment\.flipp: unknown key; did you mean flip"),
        ("cxr_moco", ["batch"], "'batch' is not a setting"),
        ("cxr_moco", ["batch=10", "accumulate=3"], "batch=10 cannot be split into accumulate=3"),
        ("cxr_moco", ["steps=5", "epochs=5"], "give steps or epochs, not both"),
        ("cxr_moco", ["epochs=null"], "give steps or epochs, not both"),
        ("cxr_moco", ["keep_every=1500"], "keep_every=1500 must be a multiple of save_every=1000"),
        ("cxr_moco", ["precision=fp8"], "precision: .*'auto', 'fp32', 'bf16' or 'fp16'"),
        ("cxr_moco", ["optim.lr=fast"], r"optim\.lr: .*given: 'fast'"),
    ],
)
def test_an_error_names_the_closest_valid_name(name, words, message):
    with pytest.raises(InputError, match=message):
        config.load_recipe(name, words)


def test_settings_that_only_change_speed_do_not_enter_the_identity():
    same = [config.recipe_identity(config.load_recipe("cxr_moco", w)) for w in ([], ["data.workers=9"], ["log_every=1"], ["threads=1"])]
    other = [
        config.recipe_identity(config.load_recipe("cxr_moco", w))
        for w in (["seed=1"], ["optim.lr=1"], ["augment.flip=0"], ["method.dim=64"])
    ]
    assert len(set(same)) == 1
    assert len(set(other) | set(same)) == 5


def test_a_watchdog_that_only_warns_does_not_enter_the_identity():
    def identity(*words):
        return config.recipe_identity(config.load_recipe("cxr_moco", words))

    assert identity("watch.every=7") == identity("watch.images=0") == identity()
    assert identity("watch.lr_factor=0.3") != identity()
    assert identity("watch.policy=stop", "watch.every=7") != identity("watch.policy=stop") != identity()


def test_the_identity_of_a_recipe_changes_only_with_its_settings():
    """`pretrain run --continue` continues a run only if run.json holds this digest, so a new setting ends runs of earlier versions."""
    assert config.recipe_identity(config.load_recipe("cxr_moco_tiny")) == "eccba6d5cb913dc4"
    assert config.recipe_identity(config.load_recipe("path_mae", ["watch.policy=rollback"])) == "7390f24057e935f5"


@pytest.mark.parametrize(
    ("value", "text"), [("true", "sync_batchnorm=true"), ("false", "sync_batchnorm=false"), ("null", "sync_batchnorm=null")]
)
def test_the_setting_of_an_earlier_version_is_refused_with_the_new_one(value, text):
    with pytest.raises(InputError, match=f"{text} is a setting of an earlier version: write batchnorm=sync for true, batchnorm=train"):
        config.load_recipe("cxr_moco_tiny", [f"sync_batchnorm={value}"])


def test_every_setting_is_described():
    rows = config.describe_settings()
    assert ("optim.lr", "0.00015", optim.Optim.model_fields["lr"].description) in rows
    assert not [key for key, _, text in rows if not text]
