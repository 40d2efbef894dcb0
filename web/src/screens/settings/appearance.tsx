import { Minus, Plus } from 'lucide-react';
import { useSyncExternalStore } from 'react';
import { setAppearance, useAppearance, type Theme } from '@/app/appearance';
import { onMac } from '@/app/keys/chord';
import { Section } from '@/app/page';
import {
  changeTerminalSettings,
  DEFAULT_SETTINGS,
  onTerminalSettings,
  stepFont,
  terminalSettings,
} from '@/terminal/settings';
import { Button, IconButton } from '@/ui/button';
import { Card } from '@/ui/list';
import { RadioGroup, Switch, type RadioOption } from '@/ui/toggles';
import { SettingsPage } from './frame';

const THEMES: readonly RadioOption<Theme>[] = [
  { value: 'system', label: 'As the system', hint: 'Changes with it, also at dusk.' },
  { value: 'light', label: 'Light' },
  { value: 'dark', label: 'Dark' },
];

export function AppearanceSettings() {
  const { theme, contrast, motion } = useAppearance();
  return (
    <SettingsPage
      title="Appearance"
      lead="How the page looks in this browser. Nothing of it is sent anywhere."
    >
      <Section title="Theme">
        <Card className="p-4">
          <RadioGroup
            label="Theme"
            value={theme}
            onChange={(next) => setAppearance({ theme: next })}
            options={THEMES}
          />
        </Card>
      </Section>
      <Section title="Seeing and moving">
        <Card className="flex flex-col gap-4 p-4">
          <Switch
            label="More contrast"
            hint="Stronger lines and text. Also on where the system asks for it."
            checked={contrast === 'more'}
            onCheckedChange={(on) => setAppearance({ contrast: on ? 'more' : 'system' })}
          />
          <Switch
            label="Less motion"
            hint="Nothing slides or turns. Also on where the system asks for it."
            checked={motion === 'less'}
            onCheckedChange={(on) => setAppearance({ motion: on ? 'less' : 'system' })}
          />
        </Card>
      </Section>
      <TerminalAppearance />
    </SettingsPage>
  );
}

function TerminalAppearance() {
  const settings = useSyncExternalStore(onTerminalSettings, terminalSettings);
  return (
    <Section title="Terminals">
      <Card className="flex flex-col gap-4 p-4">
        <div className="flex flex-wrap items-center justify-between gap-3">
          <span className="text-sm" id="font-size">
            Text size
          </span>
          <div role="group" aria-labelledby="font-size" className="flex items-center gap-1.5">
            <IconButton icon={Minus} variant="secondary" label="Smaller text" onClick={() => stepFont(-1)} />
            <output className="w-14 text-center text-sm tabular-nums">{settings.fontSize} px</output>
            <IconButton icon={Plus} variant="secondary" label="Larger text" onClick={() => stepFont(1)} />
            <Button
              variant="ghost"
              disabled={settings.fontSize === DEFAULT_SETTINGS.fontSize}
              onClick={() => stepFont(0)}
            >
              Reset
            </Button>
          </div>
        </div>
        <pre
          aria-label="How text in a terminal looks"
          className="overflow-hidden rounded-md border border-line bg-sunken p-3 font-mono leading-tight"
          style={{ fontSize: settings.fontSize }}
        >
          <span className="text-ok">ada@sandbox</span>
          {':~$ npm test\n'}
          <span className="text-fg-3">0O 1lI {'{}[]() => != ~`'}</span>
        </pre>
        <Switch
          label="Copy what is selected"
          hint="Goes to the clipboard at once, without a key."
          checked={settings.copyOnSelect}
          onCheckedChange={(copyOnSelect) => changeTerminalSettings({ copyOnSelect })}
        />
        <Switch
          label="Screen reader"
          hint="Keeps what is shown readable for one. It takes some speed."
          checked={settings.screenReader}
          onCheckedChange={(screenReader) => changeTerminalSettings({ screenReader })}
        />
        {onMac && (
          <Switch
            label="Option is Meta"
            hint="Option sends what Alt sends elsewhere, and writes no signs."
            checked={settings.optionIsMeta}
            onCheckedChange={(optionIsMeta) => changeTerminalSettings({ optionIsMeta })}
          />
        )}
      </Card>
    </Section>
  );
}
