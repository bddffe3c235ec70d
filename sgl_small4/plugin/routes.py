"""The HTTP routes and what stands between them and the scheduler: prompts, replies, efforts, limits, refusals."""

import asyncio
from collections.abc import Callable

from fastapi import HTTPException
from sglang.srt.entrypoints.anthropic.serving import ERROR_TYPE_MAP
from sglang.srt.entrypoints.openai.protocol import ChatCompletionResponse
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.plugins.hook_registry import HookType

from sgl_small4 import admission, ending, refusal
from sgl_small4.plugin.engine import local_folder
from sgl_small4.plugin.hooks import hook
from sgl_small4.prompt import chat, grammar, messages, requests, responses
from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.errors import OpenAIErrors, sentence_of
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.served import is_ours, serves_ours


@hook("sglang.srt.entrypoints.openai.chat_encoding.resolve_chat_encoding_spec", HookType.AROUND)
def encode_chats_ourselves(resolve: Callable, *, hf_config, **kwargs) -> str | None:
    """Upstream would render a template to text and encode that, where a user's text can become control ids."""
    return chat.SPEC if is_ours(hf_config) else resolve(hf_config=hf_config, **kwargs)


@hook("sglang.srt.parser.template_manager.TemplateManager.guess_chat_template_from_model_path", HookType.AROUND)
def guess_no_template(guess: Callable, templates, model_path: str) -> None:
    """By words in the path (`points`, `janus`) upstream chooses a text template, which goes before any encoding."""
    if local_folder(model_path, None) is None:
        guess(templates, model_path)


@hook("sglang.srt.entrypoints.openai.chat_encoding.spec_renders_prompt_ids", HookType.AROUND)
def send_ids(renders: Callable, spec: str | None) -> bool:
    """A fixed list upstream: with a multimodal class an empty text would be sent instead of the prompt's ids."""
    return spec == chat.SPEC or renders(spec)


@hook("sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._get_reasoning_from_request", HookType.AROUND)
def know_two_efforts(decide: Callable, handler, request) -> bool:
    """Upstream takes every effort but none for reasoning and gates grammars by it; the model knows none and high."""
    if handler.chat_encoding_spec == chat.SPEC:
        chat.settle_effort(request)
    return decide(handler, request)


@hook("sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._validate_request", HookType.AROUND)
def leave_limits_to_admission(validate: Callable, handler, request) -> str | None:
    """Upstream compares `max_tokens` with the context before it knows the prompt, under another field's name."""
    refusal_text = validate(handler, request)
    ours = handler.chat_encoding_spec == chat.SPEC
    return None if ours and refusal_text and "is too large" in refusal_text else refusal_text


@hook("sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._process_messages", HookType.AFTER)
def constrain_calls_by_control_ids(result, handler, request, *_args, **_kwargs) -> None:
    """Upstream constrains calls to a JSON array, or to the letters of [TOOL_CALLS]: neither is a call of this model."""
    if handler.chat_encoding_spec == chat.SPEC:
        grammar.constrain_calls(result, request)


@hook("sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._build_chat_response", HookType.AFTER)
def report_effort(response, handler, request, *_args) -> None:
    """Upstream says nowhere which effort was used; for a stream it is in the adapter's first chunk."""
    if handler.chat_encoding_spec == chat.SPEC and isinstance(response, ChatCompletionResponse):
        chat.report_effort(response, request)


@hook("fastapi.dependencies.utils.request_body_to_args", HookType.AROUND)
async def settle_bodies(validate: Callable, body_fields: list, received_body, embed_body_fields: bool):
    """Upstream's request types drop fields that they do not know, the switches of thinking among them, and read an
    effort differently on each route; some fail on a body of another shape. Here FastAPI hands a body to them.
    """
    if serves_ours() and len(body_fields) == 1:
        try:
            received_body = requests.settle(body_fields[0].field_info.annotation, received_body)
        except (PromptError, admission.RequestError) as refused:
            raise HTTPException(status_code=400, detail=str(refused)) from refused
    return await validate(body_fields, received_body, embed_body_fields)


@hook("fastapi.exceptions.RequestValidationError.__init__", HookType.BEFORE)
def refuse_in_one_sentence(_error, errors, **_kwargs) -> None:
    """Upstream answers with pydantic's whole list twice, the request and paths of the server's files among it."""
    if serves_ours():
        raise HTTPException(status_code=400, detail=sentence_of(errors))


@hook("sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request", HookType.AROUND)
def keep_budget(generate: Callable, manager, request, http=None):
    """Upstream refuses `max_thinking_tokens` without --enable-strict-thinking, which this model has no need of."""
    if is_ours(manager.model_config.hf_config) and isinstance(request, GenerateReqInput):
        requests.take_budget(request)
    return generate(manager, request, http)


@hook("sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat.apply_reasoning_enabled", HookType.AROUND)
def think_without_parser(apply: Callable, handler, request, enabled: bool) -> None:
    """Upstream refuses Anthropic's thinking without a reasoning parser, and sets the effort medium with Mistral's."""
    if handler.chat_encoding_spec == chat.SPEC:
        messages.switch_trace(request, enabled)
    else:
        apply(handler, request, enabled)


@hook("sglang.srt.entrypoints.openai.chat_encoding.spec_supports_inline_system", HookType.AROUND)
def keep_late_systems(supports: Callable, spec: str | None) -> bool:
    """A fixed list upstream: elsewhere a late system message of /v1/messages is moved to the front."""
    return spec == chat.SPEC or supports(spec)


MESSAGES = "sglang.srt.entrypoints.anthropic.serving.AnthropicServing"


@hook(f"{MESSAGES}._convert_to_chat_completion_request", HookType.AROUND)
def keep_anthropic_budget(convert: Callable, serving, request):
    """Upstream takes `thinking.budget_tokens` and logs that it is not kept."""
    ours = serving.openai_serving_chat.chat_encoding_spec == chat.SPEC
    return messages.chat_request(convert, serving, request) if ours else convert(serving, request)


@hook(f"{MESSAGES}._convert_response", HookType.AROUND)
def count_message(convert: Callable, serving, response):
    """Upstream's translation leaves out the trace's tokens and the effort."""
    message = convert(serving, response)
    ours = serving.openai_serving_chat.chat_encoding_spec == chat.SPEC
    return messages.counted(message, response) if ours else message


@hook(f"{MESSAGES}._generate_anthropic_stream", HookType.AROUND)
def count_streamed_message(generate: Callable, serving, *request):
    """The streamed twin of `count_message`."""
    ours = serving.openai_serving_chat.chat_encoding_spec == chat.SPEC
    return messages.counted_stream(generate, serving, *request) if ours else generate(serving, *request)


RESPONSES = "sglang.srt.entrypoints.openai.serving_responses.OpenAIServingResponses"


@hook(f"{RESPONSES}._chat_tool_call_message", HookType.AROUND)
def keep_arguments(make: Callable, message: dict, name, arguments: str) -> dict:
    """On this route alone upstream makes {} of earlier arguments that are no JSON object, as of a call that was cut."""
    given = message.get("arguments")
    kept = serves_ours() and message.get("type") == "function_call" and isinstance(given, str)
    return make(message, name, given if kept else arguments)


@hook("sglang.srt.entrypoints.openai.serving_responses.label_developer_content", HookType.AROUND)
def keep_developers_words(label: Callable, content):
    """On this route alone upstream puts a label before them; as a system message they are the same on every route."""
    return content if serves_ours() else label(content)


@hook("sglang.srt.entrypoints.openai.protocol.ResponsesRequest.to_sampling_params", HookType.AROUND)
def keep_responses_budget(build: Callable, request, *args, **kwargs) -> dict:
    """The type of /v1/responses has no `custom_params`, and two tokens of `max_output_tokens` are taken off."""
    if not serves_ours():
        return build(request, *args, **kwargs)
    return responses.sampling_params(build, request, *args, **kwargs)


@hook(f"{RESPONSES}._make_request", HookType.AROUND)
async def refuse_responses_in_one_sentence(make: Callable, handler, *args, **kwargs):
    """Upstream appends the exception behind a refusal to its message, or the word None."""
    if handler.chat_encoding_spec != chat.SPEC:
        return await make(handler, *args, **kwargs)
    return await responses.prompt_of(make, handler, *args, **kwargs)


@hook(f"{RESPONSES}._uses_required_tool_json", HookType.AROUND)
def read_forced_calls(decide: Callable, handler, *args) -> bool:
    """Upstream forces calls as a JSON array where no parser is named; ours come in control ids."""
    return handler.chat_encoding_spec != chat.SPEC and decide(handler, *args)


OLLAMA = "sglang.srt.entrypoints.ollama.serving.OllamaServing"


@hook(f"{OLLAMA}.handle_chat", HookType.AROUND)
async def serve_no_ollama_chat(handle: Callable, serving, *request):
    """Ollama's routes render a text template, where a user's text can become control ids, and split no reply."""
    refuse_ollama(serving)
    return await handle(serving, *request)


@hook(f"{OLLAMA}.handle_generate", HookType.AROUND)
async def serve_no_ollama_prompt(handle: Callable, serving, *request):
    """The twin of `serve_no_ollama_chat`."""
    refuse_ollama(serving)
    return await handle(serving, *request)


def refuse_ollama(serving) -> None:
    """Raise HTTPException (501) where a Small 4 is served."""
    if is_ours(serving.tokenizer_manager.model_config.hf_config):
        raise HTTPException(
            status_code=501, detail="Ollama's API is not served for this model; use /v1/chat/completions or /generate."
        )


@hook("sglang.srt.managers.tokenizer_manager.TokenizerManager._tokenize_one_request", HookType.AROUND)
async def refuse_constraint_early(tokenize: Callable, manager, obj):
    """Upstream finds out while it compiles, in the scheduler: after a stream's 200."""
    if is_ours(manager.model_config.hf_config) and isinstance(obj.sampling_params, dict):
        await asyncio.to_thread(check_constraint, obj.sampling_params)
    return await tokenize(manager, obj)


@hook("fastapi.applications.FastAPI.build_middleware_stack", HookType.BEFORE)
def refuse_in_openai_form(app) -> None:
    """Upstream answers `/v1/chat/completions` and others with the inner object of OpenAI's error form alone."""
    app.add_middleware(OpenAIErrors)


@hook("sglang.srt.managers.tokenizer_manager.TokenizerManager.init_running_status", HookType.AFTER)
def look_for_hang_ups_often(_result: None, manager) -> None:
    """Upstream looks every 4 s whether the client of a request without output is still there."""
    if is_ours(manager.model_config.hf_config):
        ending.poll_often()


@hook("sglang.srt.managers.tokenizer_manager.SignalHandler.running_phase_sigquit_handler", HookType.AROUND)
def end_with_a_line(kill: Callable, handler, signum=None, frame=None) -> None:
    """Upstream kills its own process when a child has failed, and the last line of the log says that it did."""
    if is_ours(handler.tokenizer_manager.model_config.hf_config):
        ending.end_after_crash(handler.tokenizer_manager)
    kill(handler, signum, frame)


@hook("sglang.srt.managers.tokenizer_manager.TokenizerManager.generate_request", HookType.AROUND)
def check_before_splitting(generate: Callable, manager, request, http=None):
    """Upstream makes as many requests as `n` says, and an abort ends all whose ids begin like the given one."""
    of_health = http is not None and http.url.path in ("/health", "/health_generate")
    outputs = generate(manager, request, http)
    if of_health or not is_ours(manager.model_config.hf_config):
        return outputs
    return refusal.watched(lambda: admission.check_request(request, manager.rid_to_state), outputs, http)


@hook("sglang.srt.managers.io_struct.GenerateReqInput.normalize_batch_and_arguments", HookType.AROUND)
def settle_fields(settle: Callable, request) -> None:
    """Upstream stumbles over lists and numbers of other shapes here, which the client sees as the server's failure."""
    admission.settle_fields(lambda: settle(request))


@hook("starlette.responses.StreamingResponse.stream_response", HookType.AROUND)
def refuse_before_the_stream(stream: Callable, response, send):
    """Upstream opens some streams before the request is checked: a refusal was an event with status 200."""
    return refusal.stream_or_refuse(stream, response, send) if serves_ours() else stream(response, send)


@hook(f"{MESSAGES}._error_response", HookType.AROUND)
def name_errors_as_anthropic(respond: Callable, handler, status_code: int, error_type: str, *args, **kwargs):
    """Upstream passes the types of OpenAI's errors on, which Anthropic's clients do not know."""
    return respond(handler, status_code, ERROR_TYPE_MAP.get(status_code, error_type), *args, **kwargs)


@hook("sglang.srt.managers.tokenizer_manager.TokenizerManager._validate_one_request", HookType.BEFORE)
def check_before_scheduling(manager, request, input_ids) -> None:
    """Upstream finds out in the scheduler that an id is not in the vocabulary, and cuts an answer to the cache."""
    if is_ours(manager.model_config.hf_config) and isinstance(request, GenerateReqInput):
        room = admission.Room.of(manager.context_len, manager.max_req_input_len)
        admission.check_tokenized(request, input_ids, manager.model_config.vocab_size, room)
