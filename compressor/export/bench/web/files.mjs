// The files of this page: beside it, or packed into it where it is a single file.

/** The bytes of a file. */
export async function fileBytes(name) {
  const packed = packedFile(name);
  if (packed) return unpack(packed.textContent);
  let response;
  try {
    response = await fetch(address(name), { cache: "no-cache" });
  } catch (error) {
    throw new Error(`${name} cannot be fetched (${error.message}); is the server still running?`);
  }
  if (!response.ok) throw new Error(`${name} cannot be fetched: HTTP ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

export async function fileText(name) {
  return new TextDecoder().decode(await fileBytes(name));
}

function address(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

/** The script element that holds a file, gzipped, in base 64. */
function packedFile(name) {
  return document.getElementById(`file:${name}`);
}

async function unpack(text) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
