// Lays SwiftShader's Vulkan driver, from the packaged Chromium, and a Vulkan loader out in swiftshader/ beside node_modules/, once npm has installed. Run in that folder.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';

const packed = 'node_modules/@sparticuz/chromium/bin/swiftshader.tar.br';
const [half, whole] = ['swiftshader.part', 'swiftshader'];
for (const folder of [half, whole]) rmSync(folder, { recursive: true, force: true });
mkdirSync(half);
writeFileSync(`${half}/all.tar`, brotliDecompressSync(readFileSync(packed)));
execFileSync('tar', ['-x', '-f', 'all.tar', 'libvk_swiftshader.so', 'vk_swiftshader_icd.json', 'libvulkan.so.1'], { cwd: half, stdio: 'inherit' });
rmSync(`${half}/all.tar`);
// The browser is of no use here.
rmSync('node_modules/@sparticuz/chromium/bin', { recursive: true });
// The folder's presence says that all went well.
renameSync(half, whole);
