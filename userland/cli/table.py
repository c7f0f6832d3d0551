"""The command table: every command of the `llmos` program and of its shell, declared once.

The argument parser, completion, help pages and the grammar the bundled model is trained on are derived from it, so a
command, an option or a help line is written in one place.
"""

from .command import Argument, Command, Kind, flag, one, option
from .making_table import DEVICE, FORCE, MAKING, REGISTERED, TUNING, WORK_CLASSES

_RELOAD = flag("--reload", "move the loaded models that follow this name to the new version, without a pause")
_PRIORITY = option("--priority", Kind.INTEGER, "higher runs earlier; 0 is usual")
_TIMEOUT = option("--timeout", Kind.SECONDS, "give up after this many seconds")

_LOADED = one(Kind.MODEL, "a loaded model, by name or id")
_TASK = one(Kind.TASK, "the id of a task")
_ANY_PATH = one(Kind.PATH, "a path of the namespace")

_SAMPLING = (
    option("-m --max-tokens", Kind.COUNT, "stop after this many new tokens"),
    option("-t --temperature", Kind.DECIMAL, "randomness; 0 always takes the most probable token"),
    option("--top-k", Kind.COUNT, "sample among the k most probable tokens"),
    option("--top-p", Kind.DECIMAL, "sample among the tokens that make up this probability"),
    option("--min-p", Kind.DECIMAL, "leave out tokens less probable than this fraction of the best"),
    option("--seed", Kind.INTEGER, "the same seed gives the same answer"),
    option("--stop", Kind.TEXT, "end when this text appears; may be repeated", many=True),
)

_DTYPES = ("float32", "bfloat16", "float16")
_KV_DTYPES = ("auto", "int8", "fp8")
_LEVELS = ("debug", "info", "warning", "error")
_ORDERS = ("rank", "name", "size", "new", "speed", "quality")

_SYSTEM = (
    Command(
        name="serve", group="system", help="run the kernel in the foreground", shell=False, changes=True,
        options=(
            option("--http", Kind.ADDRESS, "also serve HTTP at HOST:PORT (as 127.0.0.1:7411) or unix:PATH"),
            option("--config", Kind.FILE, "the TOML configuration file"),
            option("--home", Kind.FILE, "the folder of models, keys, journal and configuration (else ~/.llmos)"),
            option("--runtime", Kind.FILE, "the folder of its socket; clients find it by LLMOS_RUNTIME_DIR"),
            flag("--shared", "let other users of this machine connect, as the policy allows"),
        ),
        examples=("serve", "serve --http 127.0.0.1:7411", "serve --config kernel.toml"),
    ),
    Command(
        name="stop", group="system", help="stop the running kernel once its requests are finished", changes=True,
        options=(_TIMEOUT, flag("-f --force", "do not wait for running requests")), examples=("stop",),
    ),
    Command(
        name="doctor", group="system", help="check the installation, say what is wrong and what would be better",
        examples=("doctor",),
    ),
    Command(
        name="keys", group="system", help="the keys of the HTTP gateway", changes=True, taught=False,
        harmless=(("action", "list"),),
        arguments=(
            Argument(name="action", kind=Kind.CHOICE, help="what to do", choices=("create", "list", "revoke")),
            Argument(name="name", kind=Kind.NAME, help="the key's name; to revoke one, its name or id", required=False),
        ),
        options=(
            option("--user", Kind.NAME, "whom it belongs to; without it, the user who creates it"),
            option("--scope", Kind.NAME, "what it may do: infer, read, load, files, tune, manage, admin", many=True),
            option("--model", Kind.TEXT, "only models whose name matches this pattern; may be repeated", many=True),
            option("--expires", Kind.DURATION, "after how long it ends"),
            option("--tokens-per-minute", Kind.COUNT, "how many tokens it may use a minute"),
            option("--requests-per-minute", Kind.COUNT, "how many requests it may make a minute"),
            option("--concurrent", Kind.COUNT, "how many requests it may have at a time"),
        ),
        examples=("keys list", "keys create laptop --scope infer --scope read --expires 30d", "keys revoke laptop"),
    ),
    Command(
        name="bench", group="system", help="time calls of the kernel, or compare policies of who stays in memory",
        arguments=one(Kind.NAME, "ipc, or residency, which needs no kernel", required=False),
        options=(
            option("--seeds", Kind.NAME, "of residency: seeds of the traces, such as 101,102"),
            option("--requests", Kind.COUNT, "of residency: requests of each trace"),
        ),
        examples=("bench", "bench ipc", "bench residency --seeds 101,102 --requests 2000"),
    ),
    Command(
        name="help", group="system", help="list the commands, or explain one",
        arguments=one(Kind.COMMAND, "the command to explain", required=False), examples=("help", "help load"),
    ),
    Command(name="exit", group="system", help="leave the shell", examples=("exit",)),
)

_INFERENCE = (
    Command(
        name="run", group="inference", help="one answer from a model, or a chat when there is no prompt", changes=True,
        arguments=(
            *one(Kind.MODEL_PATH, "a model, or a folder such as ./my-model"),
            Argument(name="prompt", kind=Kind.TEXT, help="what to ask", required=False, many=True),
        ),
        options=(
            *_SAMPLING, DEVICE, _PRIORITY, _TIMEOUT,
            option("--work-class", Kind.CHOICE, "how urgent it is", choices=WORK_CLASSES),
            flag("--raw", "continue the prompt as plain text, without the chat template"),
            flag("--no-stream", "print the answer when it is complete"),
            flag("--stats", "print tokens, timing and reasons after the answer"),
        ),
        examples=("run /models/tiny", 'run /models/tiny "which models are loaded"', "run ./my-model --max-tokens 64"),
    ),
    Command(
        name="ask", group="inference", help="turn plain English into a command, show it, confirm it and run it",
        changes=True, harmless=(("dry_run", True),),
        arguments=(Argument(name="words", kind=Kind.TEXT, help="what you want, in English", many=True),),
        options=(
            flag("-y --yes", "run it without asking"),
            flag("-n --dry-run", "only show the command"),
            option("--model", Kind.MODEL_PATH, "the model that translates"),
        ),
        examples=("ask which models are loaded", 'ask "put tiny to sleep"'),
    ),
)

_FILES = (
    Command(
        name="ls", group="files", help="list a folder of the namespace; without a path, the models",
        arguments=one(Kind.PATH, "the folder", required=False),
        options=(flag("-l --long", "with sizes, dates and versions"),),
        examples=("ls", "ls /dev", "ls -l /models/acme"),
    ),
    Command(name="cat", group="files", help="print a file", arguments=_ANY_PATH,
            examples=("cat /sys/version", "cat /models/tiny/README.md")),
    Command(
        name="cp", group="files", help="copy a file or a model", changes=True,
        arguments=(
            Argument(name="source", kind=Kind.PATH, help="what to copy"),
            Argument(name="target", kind=Kind.PATH, help="where to"),
        ),
        options=(flag("-f --force", "replace the target"),),
        examples=("cp /models/tiny/README.md ./card.md", "cp ./notes.txt /home/notes.txt", "cp /models/tiny ./tiny"),
    ),
    Command(
        name="rm", group="files", help="remove a file or a model", arguments=_ANY_PATH, options=(FORCE,),
        changes=True, examples=("rm /home/notes.txt", "rm /models/acme/fox-7@1"),
    ),
    Command(
        name="mount", group="files", help="attach a folder to the namespace; alone, list what is mounted",
        changes=True, harmless=(("source", None),),
        arguments=(
            Argument(name="source", kind=Kind.SOURCE, help="a folder of the host", required=False),
            Argument(name="path", kind=Kind.PATH, help="where it appears", required=False),
        ),
        options=(
            option("--filesystem", Kind.FILESYSTEM, "the file system that reads it; models by default"),
            flag("--write", "allow writing; without it the mount is read-only"),
        ),
        examples=("mount", "mount ~/hub /models/hub", "mount ~/notes /data/notes --filesystem files --write"),
    ),
    Command(name="umount", group="files", help="detach a mount", arguments=_ANY_PATH, changes=True,
            examples=("umount /models/hub",)),
    Command(
        name="search", group="files", help="search the files under a path",
        arguments=(
            Argument(name="path", kind=Kind.PATH, help="where to look"),
            Argument(name="words", kind=Kind.TEXT, help="what to look for", required=False, many=True),
        ),
        options=(
            option("-n --limit", Kind.COUNT, "how many results"),
            option("--task", Kind.NAME, "models for this task, such as text-generation"),
            option("--architecture", Kind.NAME, "models of this architecture, such as qwen3"),
            option("--licence", Kind.NAME, "models under this licence, such as apache-2.0"),
            option("--language", Kind.NAME, "models that know this language, such as en"),
            option("--max-size", Kind.TEXT, "models of at most this size, such as 4GiB"),
            option("--fits", Kind.DEVICE, "models that fit on this device"),
            option("--sort", Kind.CHOICE, "what comes first", choices=_ORDERS),
        ),
        examples=("search /knowledge eviction policy", "search /models small chat --task text-generation --fits cpu0"),
    ),
    Command(name="fsck", group="files", help="check a file system for damage", arguments=_ANY_PATH,
            options=(flag("--repair", "mend what can be mended"),), examples=("fsck /models --repair",)),
    Command(name="gc", group="files", help="free the space of content nothing refers to", arguments=_ANY_PATH,
            changes=True, examples=("gc /models",)),
)

_MODELS = (
    Command(name="show", group="models", help="what a model is: manifest, size, versions, parents",
            arguments=REGISTERED, options=(
                option("--plan", Kind.DEVICE, "whether it would fit there now, and what would have to sleep for it"),
                option("--quant", Kind.NAME, "plan it quantized: w8, w4, ..."),
                option("--max-context", Kind.COUNT, "plan it for so long a context, in tokens"),
            ), examples=("show /models/tiny", "show /models/tiny --plan cpu0")),
    Command(
        name="load", group="models", help="load a model", changes=True, harmless=(("dry_run", True),),
        arguments=REGISTERED,
        options=(
            DEVICE,
            option("--name", Kind.NAME, "the name of the loaded model"),
            flag("--pin", "never evict it"),
            option("--keep-alive", Kind.DURATION, "how long it stays loaded without use"),
            option("--group", Kind.NAME, "models of one group are awake together; of !NAME never two on a device"),
            option("--dtype", Kind.CHOICE, "the number format of the weights", choices=_DTYPES),
            option("--kv-dtype", Kind.CHOICE, "the format of keys and values kept; 8 bits hold twice the tokens",
                   choices=_KV_DTYPES),
            option("--quant", Kind.NAME, "quantize the weights while they are read: w8, w4, fp8, w4a16-g64, ..."),
            option("--max-context", Kind.COUNT, "the longest context in tokens"),
            option("--base", Kind.MODEL, "the loaded model an adapter belongs to"),
            option("--draft", Kind.MODEL_PATH, "a small model of the same vocabulary that guesses ahead for it"),
            flag("--no-prefix-cache", "its requests use nothing that was computed for others"),
            flag("--replace", "take the place of the loaded model of the same name"),
            flag("-n --dry-run", "only plan: the bytes it needs and whether it fits"),
        ),
        examples=("load /models/tiny", "load /models/acme/fox-7 --device cpu0 --name fox --pin"),
    ),
    Command(name="unload", group="models", help="unload a model and free its memory", arguments=_LOADED,
            options=(FORCE,), changes=True, examples=("unload tiny",)),
    Command(name="sleep", group="models", help="move a model out of device memory, ready to wake",
            arguments=_LOADED, changes=True, examples=("sleep tiny",)),
    Command(name="wake", group="models", help="bring a sleeping model back", arguments=_LOADED, changes=True,
            examples=("wake tiny",)),
    Command(name="pin", group="models", help="never evict a model", arguments=_LOADED, changes=True,
            examples=("pin tiny",)),
    Command(name="unpin", group="models", help="let a model be evicted again", arguments=_LOADED, changes=True,
            examples=("unpin tiny",)),
    Command(
        name="keep-alive", group="models", help="set how long a model stays loaded without use", changes=True,
        arguments=(*_LOADED, *one(Kind.DURATION, "30s, 10m, 2h, 1d or forever")), examples=("keep-alive tiny 10m",),
    ),
    Command(
        name="swap", group="models", help="exchange a loaded model for another of its versions", changes=True,
        arguments=(*_LOADED, *one(Kind.VERSION, "the version or alias to change to")), examples=("swap fox 3",),
    ),
    Command(
        name="alias", group="models", help="give a version of a model an alias", changes=True,
        arguments=(*REGISTERED, *one(Kind.NAME, "the alias, without @", name="alias")), options=(_RELOAD,),
        examples=("alias /models/acme/fox-7@2 production", "alias /models/acme/fox-7@3 production --reload"),
    ),
    Command(name="rollback", group="models", help="go back to the version before", arguments=REGISTERED,
            options=(_RELOAD,), changes=True, examples=("rollback /models/acme/fox-7",)),
    Command(name="tag", group="models", help="give a version a tag, or take it away", changes=True, taught=False,
            arguments=(*REGISTERED, *one(Kind.NAME, "the tag", name="tag")),
            options=(flag("--remove", "take the tag away"),), examples=("tag /models/acme/fox-7@2 tested",)),
    Command(
        name="pull", group="models", help="bring a model into the registry", changes=True, taught=False,
        arguments=(
            Argument(name="source", kind=Kind.TEXT, help="a folder, a .gguf file, hf:ORG/NAME of the hub, or the "
                     "URL of a model of another LLM OS"),
            *one(Kind.PATH, "where it goes; by default /models/ and its own name", name="target", required=False),
        ),
        options=(
            option("--revision", Kind.VERSION, "the branch, tag or commit of the hub"),
            flag("--dequantize", "of a .gguf file: all weights become 16 bits"),
            flag("--detach", "print the task and return; `wait` follows it"), FORCE,
        ),
        examples=("pull ./my-model", "pull hf:acme/fox-7 --revision main", "pull ./fox-7.gguf /models/acme/fox-7"),
    ),
    Command(
        name="push", group="models", help="copy a model to a folder or to another LLM OS", changes=True, taught=False,
        arguments=(*REGISTERED, Argument(name="target", kind=Kind.TEXT, help="a folder, or another LLM OS's URL")),
        options=(flag("--detach", "print the task and return; `wait` follows it"), FORCE),
        examples=("push /models/tiny ./copies/tiny", "push /models/acme/fox-7@2 http://otherhost:7411"),
    ),
)

_WORK = (
    Command(name="ps", group="monitor", help="the loaded models", examples=("ps",)),
    Command(name="top", group="monitor", help="devices, models and requests, refreshed in place", options=(
        option("--interval", Kind.SECONDS, "the time between refreshes"), flag("--once", "print once and end"),
        flag("--memory", "every byte of the devices: planned, promised, allocated, and as the system tells"),
    ), examples=("top", "top --interval 5", "top --memory")),
    Command(name="devices", group="monitor", help="the devices, their memory and health", examples=("devices",),
            options=(flag("--ops", "which implementation serves each operation, and why others do not"),)),
    Command(name="drivers", group="monitor", help="the drivers, their processes and restarts", examples=("drivers",)),
    Command(name="sessions", group="monitor", help="the connected programs", examples=("sessions",)),
    Command(name="tasks", group="tasks", help="the tasks and their state", examples=("tasks",)),
    Command(name="wait", group="tasks", help="wait until a task ends", arguments=_TASK, options=(_TIMEOUT,),
            examples=("wait t-f423e9-17",)),
    Command(name="pause", group="tasks", help="pause a task", arguments=_TASK, changes=True,
            examples=("pause t-f423e9-17",)),
    Command(name="resume", group="tasks", help="continue a paused task", arguments=_TASK, changes=True,
            examples=("resume t-f423e9-17",)),
    Command(
        name="priority", group="tasks", help="change how early a task runs", changes=True,
        arguments=(*_TASK, *one(Kind.INTEGER, "higher runs earlier; 0 is usual", name="value")),
        examples=("priority t-f423e9-17 5",),
    ),
    Command(
        name="cancel", group="tasks", help="cancel a task or a request", changes=True,
        arguments=one(Kind.ID, "the id of a task (see tasks) or of a request (ls /proc/requests)"),
        options=(option("--grace", Kind.SECONDS, "how long it may take to end by itself"),),
        examples=("cancel r-f423e9-42", "cancel t-f423e9-17 --grace 5"),
    ),
)

_REASONS = (
    Command(name="why", group="monitor", help="the reasons: why it waits, was evicted, runs where it runs",
            arguments=one(Kind.OBJECT, "a task, request, model, device or driver"),
            examples=("why tiny", "why t-f423e9-17")),
    Command(name="alerts", group="monitor", help="what is alarming now, by the rules of the configuration",
            taught=False, examples=("alerts",)),
    Command(name="stat", group="monitor", help="everything known about one object",
            arguments=one(Kind.OBJECT, "a task, model, device, driver or path"), examples=("stat cpu0",)),
    Command(
        name="logs", group="monitor", help="the journal: what happened and why",
        arguments=one(Kind.OBJECT, "only what is about this object", name="about", required=False),
        options=(
            option("-n --lines", Kind.COUNT, "how many of the last records"),
            option("--level", Kind.CHOICE, "only records of at least this level", choices=_LEVELS),
            flag("-f --follow", "go on with new records"),
        ),
        examples=("logs", "logs -n 20", "logs tiny --follow"),
    ),
    Command(
        name="metrics", group="monitor", help="the measured values of the system",
        arguments=one(Kind.NAME, "only names that start with this", name="prefix", required=False),
        examples=("metrics", "metrics llmos_request"),
    ),
    Command(
        name="events", group="monitor", help="watch what happens, as it happens",
        arguments=one(Kind.OBJECT, "only what is about this object, or of this kind", name="about", required=False),
        examples=("events", "events tiny", "events model"),
    ),
    Command(
        name="driver", group="monitor", help="check a driver's conformance, or start, stop, restart or reset it",
        changes=True, harmless=(("action", "check"),),
        arguments=(
            Argument(name="action", kind=Kind.CHOICE, help="what to do",
                     choices=("check", "start", "stop", "restart", "reset")),
            *one(Kind.DRIVER, "the driver's name", name="name"),
        ),
        examples=("driver check null0", "driver restart cpu0"),
    ),
)

COMMANDS: tuple[Command, ...] = (*_INFERENCE, *_MODELS, *MAKING, *TUNING, *_FILES, *_WORK, *_REASONS, *_SYSTEM)


def find_command(name: str) -> Command | None:
    """The command of that name, or None."""
    return next((command for command in COMMANDS if command.name == name), None)


def groups() -> dict[str, tuple[Command, ...]]:
    """The commands by group, in the order of the table."""
    names = dict.fromkeys(command.group for command in COMMANDS)
    return {name: tuple(command for command in COMMANDS if command.group == name) for name in names}
