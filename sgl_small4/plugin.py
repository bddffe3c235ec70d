"""The only file that touches SGLang's registries and hooks.

Each hook is one function below: its docstring says why it exists and which upstream symbol it hangs on (sglang 0.5.23).
`install` puts all of them in place and raises when one of the symbols is gone.
"""

import asyncio
import pkgutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import HTTPException
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from sglang.srt.arg_groups.choices import add_attention_backend_choices
from sglang.srt.arg_groups.model_override_base import register_model_override, resolving_view
from sglang.srt.arg_groups.overrides import declare_resolution, is_attention_backend_not_set, model_config_of
from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook
from sglang.srt.configs.model_config import AttentionArch, ModelConfig
from sglang.srt.configs.model_config_parser_registry import ModelConfigParserBase, register_model_config_parser
from sglang.srt.entrypoints.anthropic.serving import ERROR_TYPE_MAP
from sglang.srt.entrypoints.openai import chat_encoding_adapters
from sglang.srt.entrypoints.openai.protocol import ChatCompletionResponse
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.model_executor.cuda_graph_config import Backend
from sglang.srt.models.registry import ModelRegistry
from sglang.srt.plugins.hook_registry import HookRegistry, HookSource, HookType
from sglang.srt.runtime_context import get_model, get_platform
from sglang.srt.utils import is_cpu
from transformers import Mistral4Config, PretrainedConfig

from sgl_small4 import admission, ending, refusal
from sgl_small4.checkpoint.files import check
from sgl_small4.config import (
    CONFIG_FILE,
    WEIGHT_FILES,
    ConfigError,
    Small4Config,
    checkpoint_format,
    is_small4,
    weight_files,
)
from sgl_small4.cpu import experts
from sgl_small4.cpu.platform import ATTENTION_BACKEND, bind_threads
from sgl_small4.model.decoder import EntryClass
from sgl_small4.prompt import chat, grammar, messages, requests, responses
from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.errors import OpenAIErrors, sentence_of
from sgl_small4.prompt.format import PromptError
from sgl_small4.prompt.served import is_ours, serves_ours


class Hook(NamedTuple):
    """`function` is called AROUND, AFTER, BEFORE or instead of (REPLACE) the upstream symbol `target`."""

    target: str
    kind: HookType
    function: Callable


HOOKS: list[Hook] = []


def hook(target: str, kind: HookType) -> Callable[[Callable], Callable]:
    """Enter the decorated function into `HOOKS`; see `HookRegistry.register` for what each kind is called with."""

    def enter(function: Callable) -> Callable:
        HOOKS.append(Hook(target, kind, function))
        return function

    return enter


@hook("sglang.kernels.ops.attention.decode_attention._decode_grouped_att_m_fwd", HookType.AROUND)
def load_values_apart(launch: Callable, query, key_buffer, value_buffer, *args, has_mla: bool = False, **kwargs):
    """Triton's decode kernel for latent rows that upstream does not split, ours of 256 + 64 among them.

    With `has_mla` the kernel takes its transposed key block for the values. The launcher cuts a key row into latent and
    rope for the widths 576 and 288 alone; 320 becomes one block of 512, which is no block of 256 values, and nothing
    compiles. Told that it is no MLA, the same kernel loads the values by themselves. Only launches that cannot compile
    are changed; what other models launch stays as it is.
    """
    key_width, value_width = key_buffer.shape[-1], value_buffer.shape[-1]
    split_upstream = key_width in (576, 288)
    same_block = (key_width - 1).bit_length() == (value_width - 1).bit_length()
    return launch(query, key_buffer, value_buffer, *args, has_mla=has_mla and (split_upstream or same_block), **kwargs)


@register_model_config_parser("small4")
class Small4ConfigParser(ModelConfigParserBase):
    """Both of a Small 4 checkpoint's configuration files to the one that our class takes."""

    def parse(self, model, trust_remote_code: bool, revision: str | None = None, **kwargs) -> PretrainedConfig:
        folder = local_folder(str(model), revision)
        if folder is None:
            raise ConfigError(f"{model} holds no Mistral Small 4; give another --model-config-parser, or none")
        config = Small4Config.from_folder(folder)
        if any(folder.glob(WEIGHT_FILES[config.source])):  # what does not fit is said before any process is spawned
            check(folder)
        return Mistral4Config(**config.to_hf(dequantize=is_cpu()))


@hook("sglang.srt.utils.hf_transformers.config.get_config", HookType.AROUND)
def read_by_content(
    read: Callable,
    model,
    trust_remote_code: bool,
    revision: str | None = None,
    model_override_args: dict | None = None,
    model_config_parser: str = "auto",
    **kwargs,
):
    """Upstream chooses the parser of `params.json` by words in the path, and has no class for HF's `mistral4`."""
    if model_config_parser == "auto" and local_folder(str(model), revision):
        model_config_parser = "small4"
    return read(model, trust_remote_code, revision, model_override_args, model_config_parser, **kwargs)


@hook("sglang.srt.model_loader.loader.DefaultModelLoader._prepare_weights", HookType.AROUND)
def choose_weight_files(prepare: Callable, loader, model: str, revision: str | None, *args, **kwargs):
    """Upstream mixes both formats' files or chooses by the path, takes pickles, and drops files in silence."""
    folder = local_folder(model, revision)
    if folder is None:
        return prepare(loader, model, revision, *args, **kwargs)
    if not Path(model).is_dir():
        patterns = [WEIGHT_FILES[checkpoint_format(folder)]]
        folder = Path(prepare(loader, model, revision, False, allow_patterns_overrides=patterns)[0])
    check(folder)
    return str(folder), [str(file) for file in weight_files(folder)], True


@hook("sglang.srt.configs.model_config.ModelConfig._derive_model_shapes", HookType.AFTER)
def use_latent_attention(_result: None, model_config: ModelConfig) -> None:
    """Upstream finds latent attention by a list of architecture names; without it the cache would hold full heads."""
    text = model_config.hf_text_config
    if text.model_type != "mistral4":
        return
    model_config.head_dim = 256  # what upstream's branch sets for every latent-attention model
    model_config.attention_arch = AttentionArch.MLA
    for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        setattr(model_config, name, getattr(text, name))
    model_config.swa_kv_lora_rank = model_config.kv_lora_rank
    model_config.swa_qk_rope_head_dim = model_config.qk_rope_head_dim
    model_config.index_head_dim = None
    # Read by flashinfer's paged wrappers instead of the layer's own scale.
    model_config.scaling = Small4Config.from_served(text).softmax_scale


@register_model_override("Mistral4ForCausalLM")
def restore_defaults(server_args, hf_config) -> dict[str, object]:
    """What upstream sets by architecture name for its own class of this model (`arg_groups/overrides.py`)."""
    given = resolving_view(server_args)
    wanted: dict[str, object] = {}
    if given.dtype == "auto" and not is_cpu():
        wanted["dtype"] = "bfloat16"
    if get_platform().is_sm100:
        if is_attention_backend_not_set(given):
            wanted["attention_backend"] = "trtllm_mla"
        if given.moe_a2a_backend == "none" and given.moe_runner_backend == "auto":
            wanted["moe_runner_backend"] = "flashinfer_trtllm"
    return wanted


@register_resolution_hook("apply_inkling_prefill_cuda_graph_default")
def capture_no_prefill(server_args, previous: Callable) -> None:
    """A captured prefill keeps to the absorbed form, which is 2.5 times the work of the expanded one.

    Upstream captures none for its own class of this model, because that class takes images. The step that this wraps is
    where it sets such a default for another architecture. Besides, cached tokens are reported on every route; upstream
    reports them unasked on /v1/responses alone.
    """
    previous(server_args)
    if not is_ours(model_config_of(server_args).hf_config):
        return
    if resolving_view(server_args).cuda_graph_backend_prefill is None:
        declare_resolution(server_args, "sgl_small4", cuda_graph_backend_prefill=Backend.DISABLED)
    declare_resolution(server_args, "sgl_small4", enable_cache_report=True)


@hook("sglang.srt.distributed.bootstrap._init_cpu_threads_env", HookType.REPLACE)
def bind_threads_to_cores(*, local_omp_cpuid: str, dist_init_method: str | None = None) -> None:
    """Upstream keeps a rank on its cores through an AMX kernel alone: elsewhere every rank would run on all cores."""
    bind_threads(local_omp_cpuid)


@hook("sglang.srt.layers.quantization.unquant.UnquantizedFusedMoEMethod.process_weights_after_loading", HookType.AFTER)
def pack_experts(_result: None, _method, layer) -> None:
    """The CPU's kernels read experts in an order of their own, made once per load; see `sgl_small4/cpu/experts.py`."""
    if is_cpu():
        experts.pack(layer)


@hook("sglang.srt.configs.update_config.adjust_config_with_unaligned_cpu_tp", HookType.AROUND)
def keep_sizes_on_cpu(adjust: Callable, model_config: ModelConfig, *args, **kwargs) -> ModelConfig:
    """Upstream rounds head counts and expert sizes up to what its AMX kernels take; ours have no such need."""
    return (
        model_config if model_config.hf_text_config.model_type == "mistral4" else adjust(model_config, *args, **kwargs)
    )


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
        except PromptError as refusal:
            raise HTTPException(status_code=400, detail=str(refusal)) from refusal
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


@hook("sglang.srt.managers.detokenizer_manager.DetokenizerManager.trim_matched_stop", HookType.AROUND)
def cut_at_last_stop(trim: Callable, manager, output, finished_reason, no_stop_trim: bool):
    """Upstream cuts a text at the first place of the stop string that ended it; here a trace may hold it too."""
    matched = (finished_reason or {}).get("matched")
    if not isinstance(matched, str) or not isinstance(output, str) or not local_folder(get_model().model_path, None):
        return trim(manager, output, finished_reason, no_stop_trim)
    before, stop, _ = output.rpartition(matched)
    return output if not stop else before + stop if no_stop_trim else before


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.__init__", HookType.BEFORE)
def constrain_text_only(_manager, scheduler) -> None:
    """Upstream's vocabulary lets a grammar spell text with control ids, and JSON hold white space without end."""
    grammar.prepare(scheduler)


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.process_req_with_grammar", HookType.AROUND)
def hold_to_grammar(process: Callable, manager, req) -> bool:
    """Upstream's gate counts a trace from the first token, needs server flags, and forbids a trace without them."""
    grammar.follow_reply(manager, req)
    waits = process(manager, req)
    if not waits:
        grammar.hold(manager, req)
    return waits


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.get_ready_grammar_requests", HookType.AFTER)
def hold_to_compiled_grammar(ready: list, manager) -> list:
    """The twin of `hold_to_grammar` for constraints that had to be compiled first."""
    for req in ready:
        grammar.hold(manager, req)
    return ready


@hook(
    "sglang.srt.managers.scheduler_components.batch_result_processor.SchedulerBatchResultProcessor"
    "._maybe_update_reasoning_tokens",
    HookType.AROUND,
)
def count_trace_by_ids(count: Callable, processor, req, next_token_id) -> None:
    """Upstream counts from the first token to a marker found by encoding it, and only with a reasoning parser."""
    reply = getattr(req, "small4_reply", None)
    if reply is None:
        count(processor, req, next_token_id)
        return
    for id in next_token_id if isinstance(next_token_id, list) else [next_token_id]:
        reply.follow(id)
    req.reasoning_tokens = reply.trace_tokens


@hook("sglang.srt.managers.schedule_batch.Req._check_str_based_finish", HookType.AROUND)
def stop_in_answer_alone(check: Callable, req, new_accepted_len: int = 1) -> bool:
    """Upstream ends a reply at a stop string anywhere: in a trace, in a call's arguments, in a marker's letters."""
    reply = getattr(req, "small4_reply", None)
    return (reply is None or reply.may_stop) and check(req, new_accepted_len)


@hook("sglang.srt.managers.schedule_batch.Req._stop_match_tail_len", HookType.AFTER)
def look_back_within_answer(length: int, req, *_args) -> int:
    """Where upstream would look for the end of a stop string in the trace before the answer."""
    reply = getattr(req, "small4_reply", None)
    return length if reply is None else max(1, min(length, reply.text_tokens))


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


@lru_cache(maxsize=32)
def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder with a Small 4's configuration files, from a path or a hub name; None for any other model."""
    folder = Path(model)
    if not folder.is_dir():
        if Path(model).is_absolute():
            return None
        try:
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(CONFIG_FILE.values())))
        except (HfHubHTTPError, HFValidationError, OSError):
            return None  # not on the hub or no network: upstream says so in its own words
    return folder if is_small4(folder) else None


class MissingTarget(RuntimeError):
    """An upstream symbol that a hook hangs on does not exist in the installed SGLang."""


def install() -> None:
    """Register the model class and apply every hook, once per process."""
    ModelRegistry.models[EntryClass.__name__] = EntryClass  # `register` would import all of upstream's models first
    if is_cpu():
        add_attention_backend_choices([ATTENTION_BACKEND])  # the backend itself: CpuPlatform.init_backend
    chat_encoding_adapters._BUILDERS[chat.SPEC] = {"builtin": chat.build_adapter}
    for entry in HOOKS:
        apply(entry)


def apply(entry: Hook) -> None:
    """Apply one hook now; raises MissingTarget when the symbol is not there.

    `HookRegistry.apply_hooks` would log the failure and go on, and would skip a target that another plugin has hooked;
    `_apply_target` is the part of it that does the work.
    """
    find(entry.target)
    source = HookSource(plugin_name="sgl_small4", dist_name="sgl-small4")
    HookRegistry._apply_target(entry.target, [(entry.kind, entry.function, source)])
    if not hasattr(find(entry.target), "__wrapped__"):
        raise MissingTarget(f"the hook on {entry.target} did not take")


def find(target: str) -> object:
    """The upstream symbol with this dotted name; raises MissingTarget when the installed SGLang has none."""
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError) as error:
        raise MissingTarget(f"this sglang has no {target} ({error}); install sglang==0.5.23") from error
