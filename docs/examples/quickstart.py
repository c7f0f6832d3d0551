"""The first program: a private kernel, a model, an answer, a stream, and what the kernel knows about it."""

from llmos.userland import boot

with boot() as system:
    model = system.load_model("/models/tiny")
    print(model.infer("Return the number of", max_tokens=24).text)

    for chunk in model.infer_stream("Open the file and", max_tokens=24, temperature=0.7, seed=1):
        print(chunk.text, end="", flush=True)
    print()

    request = [{"role": "user", "content": "which models are loaded"}]
    if model.info.chat:
        print(model.infer(request, max_tokens=24).text)

    for info in system.models():
        print(info.name, info.state, info.bytes)
    for reason in system.why(model.info.id):
        print(reason.text)
