"""The part of the command table that makes models of others: quantize, prune, merge, export, tune; and what all of the
table shares.
"""

from .command import Argument, Command, Kind, flag, one, option

DEVICE = option("-d --device", Kind.DEVICE, "the device to use; without it, the policy places the model")
FORCE = flag("-f --force", "do it although something still uses it")
REGISTERED = one(Kind.MODEL_PATH, "a model: /models/[ORG/]NAME[@VERSION], or a folder such as ./my-model")
WORK_CLASSES = ("interactive", "batch", "background")

_GROUPS = ("0", "32", "64", "128")
_METHODS = ("rtn", "gptq", "awq", "smoothquant")
_PRUNERS = ("magnitude", "wanda", "heads", "layers")
_MERGERS = ("linear", "slerp", "ties", "dare", "adapter")
_FORMATS = ("gguf", "gguf-f16", "gguf-q8_0", "gguf-q4_0")

_JOB = (flag("--detach", "print the task and return; `wait` follows it"), FORCE)
_OUT = Argument(name="out", kind=Kind.PATH, help="where it goes: a name or path of /models, or a folder such as ./out")
_LEARNT_FROM = option("--text", Kind.FILE, "text that the model is to be good at; may be repeated", many=True)

MAKING = (
    Command(
        name="quantize", group="models", help="store a model with narrower weights", changes=True, taught=False,
        arguments=(*REGISTERED, _OUT),
        options=(
            option("--to", Kind.NAME, "w4, w8, fp8, or with activations: w4a16, w8a16, w8a8, w4a8; w8 by default"),
            option("--group", Kind.CHOICE, "inputs that share a scale; 0 for all of them", choices=_GROUPS),
            option("--method", Kind.CHOICE, "how numbers are chosen; rtn needs no text", choices=_METHODS),
            _LEARNT_FROM,
            flag("--shift", "each group has a shift beside its scale"),
            option("--head", Kind.CHOICE, "bits of the output layer", choices=("4", "8", "16")),
            option("--budget", Kind.TEXT, "bytes of all weights, such as 4GiB: what suffers most is kept wider"),
            option("--keep", Kind.TEXT, "layers that stay as they are, as *.down_proj; may be repeated", many=True),
            *_JOB,
        ),
        examples=("quantize /models/acme/fox-7 fox-w4 --to w4 --method gptq --text ./notes.txt",
                  "quantize /models/tiny tiny-w8"),
    ),
    Command(
        name="prune", group="models", help="store a model without the weights that matter least", changes=True,
        taught=False, arguments=(*REGISTERED, _OUT),
        options=(
            option("--method", Kind.CHOICE, "what goes: weights, whole heads or whole layers", choices=_PRUNERS),
            option("--sparsity", Kind.TEXT, "the part that goes, such as 0.5; or 2:4, two of each four"),
            option("--layer", Kind.INTEGER, "with layers: this one goes; may be repeated", many=True),
            _LEARNT_FROM, *_JOB,
        ),
        examples=("prune /models/acme/fox-7 fox-half --method wanda --sparsity 2:4 --text ./notes.txt",),
    ),
    Command(
        name="merge", group="models", help="make one model of several, or put adapters into their base", changes=True,
        taught=False,
        arguments=(Argument(name="models", kind=Kind.MODEL_PATH, help="the models, and last where the result goes",
                            many=True),),
        options=(
            option("--method", Kind.CHOICE, "how; adapter puts the others into the first", choices=_MERGERS),
            option("--base", Kind.MODEL_PATH, "what the models were tuned from, for ties and dare"),
            option("--weights", Kind.TEXT, "one number for each model, such as 0.7,0.3"),
            option("--density", Kind.DECIMAL, "the part of each difference that ties and dare keep"),
            option("--seed", Kind.INTEGER, "where the random numbers of dare start"),
            flag("--as-given", "weights are used as they are, not divided by their sum"),
            *_JOB,
        ),
        examples=("merge fox-chat fox-code fox-both --weights 0.7,0.3",
                  "merge fox-chat fox-code fox-both --method ties --base fox", "merge fox ./adapter fox-new --method "
                  "adapter"),
    ),
    Command(
        name="export", group="models", help="write a model in another format", changes=True, taught=False,
        arguments=(*REGISTERED, Argument(name="out", kind=Kind.PATH, help="a file or folder, such as ./fox.gguf")),
        options=(
            option("--format", Kind.CHOICE, "gguf keeps the width of the weights; or with them as", choices=_FORMATS),
            *_JOB,
        ),
        examples=("export /models/tiny ./tiny.gguf", "export /models/tiny ./tiny.gguf --format gguf-q8_0"),
    ),
)

_SINKS = (
    option("--tensorboard", Kind.FILE, "write the curve into this folder, for TensorBoard"),
    option("--wandb", Kind.TEXT, "write the curve to this project of Weights & Biases"),
)

TUNING = (
    Command(
        name="tune", group="models", help="adapt a model to data on its device, while it answers requests",
        changes=True, taught=False,
        arguments=(
            Argument(name="model", kind=Kind.MODEL_PATH, help="a loaded model by its name, else one that is loaded"),
            Argument(name="data", kind=Kind.PATH, help="the data: a file such as ./data.jsonl, or a path"), _OUT,
        ),
        options=(
            option("--recipe", Kind.FILE, "a TOML file with the fields of the recipe; options here go before it"),
            option("--method", Kind.NAME, "what is trained: lora by default; qlora, dora, ia3, prefix, full, ..."),
            option("--objective", Kind.NAME, "what is learnt: causal-lm by default"),
            option("--rank", Kind.COUNT, "of lora: how wide the adapter is"),
            option("--alpha", Kind.DECIMAL, "of lora: how much the adapter counts"),
            option("--epochs", Kind.DECIMAL, "how often the data are gone through"),
            option("--max-steps", Kind.COUNT, "end after so many steps"),
            option("--batch-size", Kind.COUNT, "rows of a step"),
            option("--learning-rate", Kind.DECIMAL, "how far a step goes"),
            option("--max-length", Kind.COUNT, "tokens of a row; longer texts are split, other rows refused"),
            option("--eval-fraction", Kind.DECIMAL, "the part of the rows that is held out, to judge by"),
            option("--promote-if", Kind.TEXT, "a condition on figures, such as eval_loss < eval_loss_before"),
            option("--checkpoint-every", Kind.COUNT, "steps between checkpoints; by default every five minutes"),
            option("--seed", Kind.INTEGER, "the same seed gives the same result"),
            option("--set", Kind.TEXT, "another part of the recipe, as NAME=VALUE; may be repeated", many=True),
            option("--search", Kind.FILE, "a TOML file that says which recipes to try: space, trials, parallel, ..."),
            option("--search-over", Kind.TEXT, "try NAME=LOW..HIGH[:log] or NAME=A,B,C; may be repeated", many=True),
            option("--trials", Kind.COUNT, "of a search: how many recipes are tried, at most"),
            option("--parallel", Kind.COUNT, "of a search: how many at once"),
            option("--metric", Kind.NAME, "of a search: the figure of held-out rows to go by; eval_loss by default"),
            option("--sampler", Kind.CHOICE, "of a search: how recipes are chosen", choices=("tpe", "random")),
            option("--pruner", Kind.CHOICE, "of a search: which end early", choices=("hyperband", "median", "none")),
            option("--device-seconds", Kind.DECIMAL, "of a search: seconds of computing, at most"),
            option("--seconds", Kind.DECIMAL, "of a search: seconds under way, at most"),
            option("--work-class", Kind.CHOICE, "how urgent it is", choices=WORK_CLASSES), DEVICE,
            *_SINKS,
            flag("--plan", "only say what it would take"),
            flag("--detach", "print the task and return; `wait` follows it"),
        ),
        examples=("tune tiny ./data.jsonl my-tiny", "tune tiny ./data.jsonl my-tiny --epochs 3 --eval-fraction 0.1",
                  "tune tiny ./data.jsonl my-tiny --plan", "tune tiny ./data.jsonl my-tiny --eval-fraction 0.1 "
                  "--search-over learning_rate=1e-5..1e-2:log --search-over rank=4,8,16 --trials 20 --parallel 4"),
    ),
    Command(
        name="back-translate", group="models", help="say training data in other words, by models that serve",
        taught=False,
        arguments=(
            Argument(name="data", kind=Kind.FILE, help="rows: a .jsonl or .csv file of this machine"),
            Argument(name="out", kind=Kind.FILE, help="a new folder, with train.jsonl and what is held out"),
        ),
        options=(
            option("--through", Kind.MODEL, "a model that each text goes through; the next is given again", many=True),
            option("--field", Kind.NAME, "a column that is said in other words; may be repeated", many=True),
            option("--eval-fraction", Kind.DECIMAL, "the part of the rows that is held out, without copies"),
            option("--task", Kind.NAME, "what the models are asked for: translation, or text2text-generation, ..."),
        ),
        examples=("back-translate ./data.jsonl ./more --through en-de --through de-en --eval-fraction 0.1",),
    ),
    Command(
        name="runs", group="models", help="the runs of tuning; of one what is known, of several their losses compared",
        taught=False,
        arguments=(Argument(name="runs", kind=Kind.ID, help="ids of runs", required=False, many=True),),
        options=(
            option("--report", Kind.FILE, "write the report of a run into this folder: a page, pictures, text"),
            *_SINKS,
        ),
        examples=("runs", "runs t-f423e9-17", "runs t-f423e9-17 t-f423e9-21", "runs t-f423e9-17 --report ./report",
                  "runs t-f423e9-17 --tensorboard ./curves"),
    ),
)
