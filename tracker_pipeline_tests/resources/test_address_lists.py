"""Address lists are read from files and URLs, and a wrong line is named."""

import gzip

import pytest
from aiohttp import web

from tracker_pipeline.domain.addresses import ListedAddress
from tracker_pipeline.resources.address_lists import read_address_list
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline_tests.serving import served

HOLDER = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
OTHER = "0x73BCEb1Cd57C711feaC4224D062b0F6ff338501e"


@pytest.fixture
def write(tmp_path):
    def write(text: str, encoding: str = "utf-8"):
        path = tmp_path / "list.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_a_list_has_addresses_and_names(write):
    assert read_address_list(write(f"address,label\n{HOLDER},Somebody\n\n{OTHER},\n")) == (
        ListedAddress(HOLDER.lower(), "Somebody", "list.csv"),
        ListedAddress(OTHER.lower(), None, "list.csv"),
    )


@pytest.mark.parametrize(
    "text",
    [
        f'Rank,Address,Name Tag,Balance\n1,{HOLDER},"Doe, Jane","1,234 ETH"\n',
        f'"Address","Name Tag"\n"{HOLDER}","Doe, Jane"\n',
        f'address,name_tag,labels,balance_2023\n{HOLDER},"Doe, Jane",a|b,1 wei\n',
        f'address,nameTag\r\n{HOLDER.lower()},"Doe, Jane"\r\n',
        f'label,address\n"Doe, Jane",{HOLDER}\n',
    ],
)
def test_exports_of_etherscan_and_other_orders_of_columns_are_read(write, text):
    assert read_address_list(write(text, "utf-8-sig")) == (
        ListedAddress(HOLDER.lower(), "Doe, Jane", "list.csv"),
    )


def test_a_list_of_addresses_alone_has_no_names(write):
    assert read_address_list(write(f"address\n{HOLDER}\n"))[0].label is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"address,label\n{HOLDER},A\n0x12,B\n", r"list\.csv, line 3: '0x12' is not an address"),
        (f"address,label\n{HOLDER.replace('d8dA', 'D8dA')},A\n", r"list\.csv, line 2: .* wrong checksum"),
        (f'address,label\n"{HOLDER}","A\nB"\n0x1,C\n', r"list\.csv, line 4: "),
        ("address,label\n,A\n", r"list\.csv, line 2: '' is not an address"),
        (f"{HOLDER},A\n", r"list\.csv has no column address"),
        ("", r"list\.csv has no column address"),
        ("address,label\n", r"list\.csv lists no address"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write, text, words):
    with pytest.raises(PermanentError, match=words):
        read_address_list(write(text))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(PermanentError, match="cannot be read"):
        read_address_list(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"address\n\xff\xfe\n")
    with pytest.raises(PermanentError, match="not UTF-8"):
        read_address_list(tmp_path / "binary.csv")


def app_with(status: int, text: str) -> web.Application:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    return app


def test_a_list_is_read_from_a_url_and_its_source_holds_no_key():
    with served(app_with(200, f"address,label\n{HOLDER},Somebody\n")) as url:
        read = read_address_list(f"{url}/list.csv?key=s3cret")
    assert read == (ListedAddress(HOLDER.lower(), "Somebody", url),)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, PermanentError), (403, PermanentError), (500, TransientError), (429, TransientError)],
)
def test_a_url_that_fails_says_whether_another_try_may_help(status, kind):
    with served(app_with(status, "no")) as url, pytest.raises(kind, match=f"status {status}") as failure:
        read_address_list(f"{url}/s3cret.csv")
    assert "s3cret" not in str(failure.value)


def test_a_server_that_is_away_may_come_back():
    with pytest.raises(TransientError, match="cannot be fetched"):
        read_address_list("http://127.0.0.1:9/list.csv")


def test_twenty_thousand_accounts_of_a_real_export_are_read(shared_data, tmp_path):
    path = tmp_path / "accounts.csv"
    path.write_bytes(
        gzip.decompress((shared_data / "accounts/etherscan_labelled_accounts.csv.gz").read_bytes())
    )
    assert len(read_address_list(path)) == 23_292
