"""XML that is no domain: malformed, an attack, of another kind, or too much. hvtui refuses each without reading on."""

from __future__ import annotations

LAUGHS = "".join(f'<!ENTITY l{n} "{"&l%d;" % (n - 1) * 10}">' for n in range(1, 12))  # noqa: UP031
HOSTILE_XML: dict[str, str | bytes] = {
    "nothing": "",
    "blanks": " \n\t ",
    "half": "<domain><name>build-07</na",
    "no XML": "hello",
    "escape sequence": "\x1b[31m",
    "NUL": b"<domain>\x00</domain>",
    "not UTF-8": b"<domain><name>\xff\xfe</name></domain>",
    "other encoding": "<?xml version='1.0' encoding='utf-16'?><domain/>".encode("utf-16"),
    "unknown encoding": "<?xml version='1.0' encoding='x-nothing'?><domain/>",
    "billion laughs": f'<!DOCTYPE d [<!ENTITY l0 "ha">{LAUGHS}]><domain><name>&l11;</name></domain>',
    "external entity": '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><domain><name>&e;</name></domain>',
    "external subset": '<!DOCTYPE d SYSTEM "http://127.0.0.1:9/x.dtd"><domain/>',
    "parameter entity": '<!DOCTYPE d [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><domain/>',
    "wrong root": "<network><name>build-07</name></network>",
    "another namespace": "<d:domain xmlns:d='urn:x'/>",
    "too big": "<domain><description>" + "x" * (1 << 20) + "</description></domain>",
    "too deep": "<domain>" + "<a>" * 100_000 + "</a>" * 100_000 + "</domain>",
    "too wide": "<domain " + " ".join(f"a{n}='1'" for n in range(50_000)) + "/>",
    "a name without": "<domain type='test'><uuid>{uuid}</uuid></domain>",
}
