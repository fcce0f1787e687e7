"""What a project wants kept of what was said is kept up to the ledger's class, and nothing above it."""

import aiohttp
import pytest
from batches.press import jsonl, lines_of, reach, request, start, upload
from gateway.stage import until
from gateway_limits.bank import Bank, ask
from gateway_limits.books import entries, entry_of, requests
from gateway_limits.test_lines_of_batches import official

pytestmark = pytest.mark.process


async def test_contents_are_kept_up_to_the_class(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Of a project that wants them, public texts alone, over chat, streams and batch lines; the entries all stand."""
    key, project = await bank.member({"keeps_content": True})
    gateway, named = bank.gateways[0], {"OpenAI-Project": project}
    ids: dict[str, str] = {}
    for privacy in ("public", "internal", "restricted"):
        for stream in (False, True):
            mark = f"{privacy} {stream}"
            told = await ask(
                client,
                gateway,
                key,
                headers={**named, "x-stream-privacy": privacy},
                stream=stream,
                messages=[{"role": "user", "content": f"asked {mark}"}],
                script={"tokens": 2, "text": f"said {mark}"},
            )
            assert told.status == 200
            ids[mark] = told.headers["x-request-id"]
    # Refused before its class is known: nobody knows who may see it.
    broken = await ask(client, gateway, key, headers={**named, "x-stream-privacy": "asked unknown"}, n="asked unknown")
    assert broken.status == 400
    async with official(bank, key) as owner:
        for privacy in ("public", "restricted"):
            mark = f"{privacy} line"
            line = request("1", f"asked {mark}", max_tokens=5, script={"tokens": 2, "text": f"said {mark}"})
            file = await upload(owner, jsonl(line), **{"x-stream-privacy": privacy})
            batch = await reach(owner, (await start(owner, file, **named)).id)
            ((answer,)) = await lines_of(owner, batch.output_file_id)
            ids[mark] = answer["response"]["request_id"]
    await until(lambda: {fields.id for fields in requests(bank.stage.folder)} >= set(ids.values()))
    for mark, id_ in ids.items():
        fields = entry_of(bank.stage.folder, id_)
        assert (fields.project, fields.privacy, fields.status) == (project, mark.split()[0], 200)
        if fields.privacy == "public":
            assert f"asked {mark}" in (fields.prompt or "")
            assert f"said {mark}" in (fields.answer or "")
        else:
            assert (fields.prompt, fields.answer) == (None, None)
    kept = "".join(entries(bank.stage.folder))
    assert not [mark for mark in ids if "public" not in mark and mark in kept]
    assert "asked unknown" not in kept
