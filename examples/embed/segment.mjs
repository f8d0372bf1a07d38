// node segment.mjs ARTIFACT IMAGE MASK.png: class ids as a greyscale PNG, and how many pixels each class has.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import sharp from 'sharp';

const [artifact, source, target] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(join(artifact, name), 'utf8'));
const refuse = (reason) => { console.error(reason); process.exit(2); };
const { size, value_range: range, window } = read('preprocess.json');
if (range) refuse('this network takes raw values of one channel: window them first, see medical.py');
if (window) refuse('this network takes one window of an image at a time: export without --window');

const session = await ort.InferenceSession.create(join(artifact, 'models', 'model.mask.onnx'));
const [given] = session.inputMetadata;
if (given.type !== 'uint8') refuse('this network takes normalised floats: export without --no-bake-preprocess');

const { width, height } = await sharp(source).metadata();
let image = sharp(source).removeAlpha().toColourspace('srgb');
if (size) image = image.resize({ height: size[0], width: size[1], fit: 'fill', kernel: 'linear' });
const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });

const count = Number.isInteger(given.shape[0]) ? given.shape[0] : 1; // a fixed batch: the image fills it
const pixels = new Uint8Array(count * data.length);
for (let index = 0; index < count; index += 1) pixels.set(data, index * data.length);
const tensor = new ort.Tensor('uint8', pixels, [count, info.height, info.width, 3]);
const { mask } = await session.run({ image: tensor });
// Masks may be of 8, 32 or 64 bits, with their one channel first, last or nowhere: the first H·W ids are the image's.
const ids = Uint8Array.from(mask.data.subarray(0, info.height * info.width), Number);

// Ids, not intensities: the nearest one, never a mean of two.
await sharp(ids, { raw: { width: info.width, height: info.height, channels: 1 } })
  .resize({ width, height, fit: 'fill', kernel: 'nearest' })
  .toColourspace('b-w')
  .png()
  .toFile(target);

const counts = new Map();
for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
for (const { id, name } of read('label_map.json').classes) console.log(`${name}\t${counts.get(id) ?? 0}`);
