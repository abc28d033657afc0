"""The software bill of materials of a file, in CycloneDX 1.6: what it is, and what installing it brings along."""

import datetime as dt
import email
import hashlib
import re
import tarfile
import uuid
import zipfile
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement


def write_sbom(path: Path, epoch: int) -> Path:
    """Write the SBOM of a wheel or source distribution beside it, with the time stamp of the commit.

    Raises:
        ValueError: the document does not conform to the schema of CycloneDX.
    """
    metadata = email.message_from_string(_metadata(path))
    name, version = metadata["Name"], metadata["Version"]
    digest = hashlib.sha256(path.read_bytes())
    subject = Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=path.name,
        purl=PackageURL("pypi", None, name, version, {"file_name": path.name}),
        licenses=[LicenseExpression(metadata["License-Expression"])],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.hexdigest())],
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest()))
    bom.metadata.timestamp = dt.datetime.fromtimestamp(epoch, dt.UTC)
    bom.metadata.component = subject
    needed = [_component(Requirement(line)) for line in metadata.get_all("Requires-Dist", [])]
    for component in needed:
        bom.components.add(component)
    bom.register_dependency(subject, [component for component in needed if component.scope is ComponentScope.REQUIRED])
    document = JsonV1Dot6(bom).output_as_string(indent=2)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    if fault is not None:
        raise ValueError(f"{path.name}: expected an SBOM by the schema of CycloneDX 1.6, got: {fault}")
    target = path.with_name(f"{path.name}.cdx.json")
    target.write_text(f"{document}\n")
    return target


def _metadata(path: Path) -> str:
    """Return the core metadata of a distribution."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as opened:
            (name,) = [name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            return opened.read(name).decode()
    with tarfile.open(path) as archive:
        file = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        return file.read().decode()


def _component(requirement: Requirement) -> Component:
    """Describe a package that is needed always, or for an extra; the versions are those that are allowed."""
    marker = str(requirement.marker or "")
    return Component(
        name=requirement.name,
        type=ComponentType.LIBRARY,
        bom_ref=str(requirement),
        purl=PackageURL("pypi", None, requirement.name.lower()),
        scope=ComponentScope.OPTIONAL if "extra ==" in marker else ComponentScope.REQUIRED,
        properties=[
            Property(name=f"python:{key}", value=value)
            for key, value in (("versions", str(requirement.specifier)), ("marker", marker))
            if value
        ],
    )
