// Three calls at one a second, with the package's own retries; each 429 is told.
import OpenAI from 'openai'

const [baseURL, apiKey, model] = process.argv.slice(2)
const waits = []
const client = new OpenAI({
  baseURL,
  apiKey,
  fetch: async (url, init) => {
    const res = await fetch(url, init)
    if (res.status === 429) waits.push({ ms: Number(res.headers.get('retry-after-ms')), at: performance.now() })
    else if (waits.length > 0) waits.at(-1).waited ??= performance.now() - waits.at(-1).at
    return res
  },
})
const remaining = []
for (let i = 0; i < 3; i++) {
  const { data, response } = await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'one two three' }] }).withResponse()
  remaining.push(response.headers.get('x-ratelimit-remaining-requests') + (data.choices[0].message.content ? '' : ' of nothing'))
}
console.log(JSON.stringify({ waits, remaining }))
