"""The listing of the bulk export: only batches of the source, and no other XML."""

import pytest

from isaerft.explanations.neuronpedia.api import parse_page
from isaerft.explanations.neuronpedia.records import SourceId
from isaerft.http import BadAnswer

SOURCE_ID = SourceId("gpt2-small", "8-res-jb")


def test_a_listing_gives_its_batches_alone_and_says_where_it_goes_on():
    folder = "v1/gpt2-small/8-res-jb/explanations/"
    keys = ["batch-0.jsonl.gz", "batch-1.jsonl", "batch-x.jsonl.gz", "sub/batch-2.jsonl.gz", "../batch-3.jsonl.gz"]
    contents = "".join(f"<Contents><Key>{folder}{key}</Key></Contents>" for key in keys)
    tail = "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;1</NextContinuationToken>"
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{contents}{tail}</ListBucketResult>'
    assert parse_page(body.encode(), SOURCE_ID) == ([folder + key for key in keys[:2]], "t&1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"<html><body/></html>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>',
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult>",
    ],
)
def test_what_is_no_listing_is_refused(body):
    with pytest.raises(BadAnswer):
        parse_page(body, SOURCE_ID)
